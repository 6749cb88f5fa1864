"""A hook may change: what is deprecated is told, and a plugin for another interface is left out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
import pytest
from packaging.version import Version
from pages import blocks

import specdec
from specdec import hookimpl
from specdec.errors import PluginError
from specdec.plugin import hookspecs
from specdec.plugin.components import API_VERSION, hookspec
from specdec.plugin.deprecations import deprecation, deprecations_of
from specdec.plugin.registry import Registry


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


def told_of(
    implementation: Callable[..., None], **marker: Any
) -> tuple[tuple[str, ...], list[str]]:
    """What a plugin is told of a hook specified with ``marker``, and warnings at registration."""

    def specdec_example(step: Any, tokens: Any) -> None:
        """Nothing."""

    manager = pluggy.PluginManager("specdec")
    manager.add_hookspecs(module("specs", specdec_example=hookspec(**marker)(specdec_example)))
    plugin = module("author", specdec_example=hookimpl(implementation))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manager.register(plugin)
    return deprecations_of(manager, plugin), [str(each.message) for each in caught]


def test_a_deprecated_argument_is_told_to_those_that_take_it() -> None:
    going = deprecation(
        "the argument 'tokens' of specdec_example", since="0.4", until="0.7", instead="take 'step'"
    )
    said = (
        "the argument 'tokens' of specdec_example is deprecated since 0.4 and gone in 0.7: take "
        "'step'"
    )
    marker = {"warn_on_impl_args": {"tokens": going}}
    assert told_of(lambda step, tokens: None, **marker) == ((said,), [said])
    assert told_of(lambda step: None, **marker) == ((), [])
    assert told_of(lambda tokens: None) == ((), [])


def test_a_deprecated_hook_is_told_to_those_that_implement_it() -> None:
    going = deprecation("specdec_example", since="0.4", until="0.7", instead="leave it out")
    told, warned = told_of(lambda: None, warn_on_impl=going)
    assert told == (str(going),) and warned == [str(going)]


def kept_too_short_or_too_long(hooks: Iterable[Callable[..., Any]], version: str) -> list[str]:
    """What hook specifications deprecate for less than the policy says, or still have in a version
    that it was to be gone in."""
    wrong = []
    for hook in hooks:
        marker = getattr(hook, "specdec_spec", {})
        warnings_ = [marker.get("warn_on_impl"), *(marker.get("warn_on_impl_args") or {}).values()]
        for told in filter(None, warnings_):
            (named,) = re.findall(r"since (\S+) and gone in (\S+):", str(told))
            first, last = map(Version, named)
            minors = first.major == last.major == 0 and last.minor > first.minor + 2
            enough = last.major > first.major or minors
            if not enough or last <= Version(version):
                wrong.append(str(told))
    return wrong


def test_what_is_deprecated_works_as_long_as_the_policy_says_and_no_longer() -> None:
    hooks = [each for name, each in vars(hookspecs).items() if name.startswith("specdec_")]
    assert hooks and not kept_too_short_or_too_long(hooks, specdec.__version__)
    (code,) = [block for block in blocks("CONTRIBUTING.md") if "def specdec_example" in block]
    shown: dict[str, Any] = {}
    exec(code, shown)  # noqa: S102
    example = [shown["specdec_example"]]
    assert not kept_too_short_or_too_long(example, "0.6")
    assert kept_too_short_or_too_long(example, "0.7")


@pytest.mark.parametrize(
    ("since", "until", "long_enough"),
    [
        ("0.4", "0.6", False),
        ("0.4", "0.7", True),
        ("0.9", "1.0", True),
        ("1.4", "1.7", False),
        ("1.9", "2.0", True),
    ],
)
def test_what_is_deprecated_is_gone_after_two_minor_versions_or_in_a_major_one(
    since: str, until: str, long_enough: bool
) -> None:
    going = deprecation("it", since=since, until=until, instead="none")
    hook = hookspec(warn_on_impl=going)(lambda: None)
    assert bool(kept_too_short_or_too_long([hook], since)) is not long_enough


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (API_VERSION - 1, "install a newer version of the plugin, or an older specdec"),
        (API_VERSION + 1, "install an older version of the plugin, or a newer specdec"),
        ("2", "give a whole number"),
        (True, "give a whole number"),
    ],
)
def test_a_plugin_for_another_interface_is_refused_with_both_versions(
    version: Any, says: str
) -> None:
    with pytest.raises(PluginError, match=says) as error:
        Registry.load([module("written_then", specdec_api_version=version)])
    assert "'written_then'" in str(error.value) and str(API_VERSION) in str(error.value)


def test_a_plugin_for_this_interface_is_loaded() -> None:
    plugin = module(
        "written_now", specdec_api_version=API_VERSION, specdec_strategies=hookimpl(lambda: [])
    )
    assert Registry.load([plugin]).manager.is_registered(plugin)


def distribution(folder: Path, name: str, plugin: str, code: str) -> None:
    """A distribution with one plugin, as an installer would leave it."""
    (folder / f"{plugin}.py").write_text(code)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[specdec]\n{plugin} = {plugin}\n")


def test_an_installed_plugin_for_another_interface_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "of_old", "plugin_of_old", f"specdec_api_version = {API_VERSION - 1}\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = {plugin.name: plugin for plugin in Registry.load().plugins}
    assert "install a newer version" in (found["plugin_of_old"].error or "")
    assert found["eagle2"].error is None


def test_an_installed_plugin_with_a_hook_that_is_gone_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from specdec import hookimpl\n@hookimpl\ndef specdec_gone():\n    return []\n"
    distribution(tmp_path, "of_old", "plugin_with_gone", code)
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.load()
    found = {plugin.name: plugin for plugin in registry.plugins}
    assert "specdec_gone" in (found["plugin_with_gone"].error or "")
    assert found["eagle2"].error is None and registry.strategy("eagle2")


def test_a_plugin_that_two_distributions_name_is_one_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a distribution has been renamed, and the old one is still there."""
    for name in ("once", "twice"):
        distribution(tmp_path, name, "plugin_of_two", "")
    monkeypatch.syspath_prepend(tmp_path)
    found = [plugin for plugin in Registry.load().plugins if plugin.name == "plugin_of_two"]
    assert [plugin.error for plugin in found] == [None]
