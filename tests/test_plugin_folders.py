"""Without any one folder of ``plugins/`` everything works that names no part of it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

import specdec
from specdec.plugin import ROLES
from specdec.plugin.registry import Registry

PLUGINS = ROOT / "plugins"
FOLDERS = sorted(path.parent.name for path in PLUGINS.glob("*/__init__.py"))
CORE = {"plain"}
# Strategies whose drafter has no checkpoint for the embedded model.
HEADLESS = {"eagle3", "medusa", "hydra"}
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")


def site_without(folder: str, site: Path) -> Path:
    """A folder to import specdec from, as an installer would leave it without one plugin."""
    (site / "specdec").symlink_to(Path(specdec.__file__).parent)
    shutil.copytree(PLUGINS, site / "specdec_plugins", ignore=shutil.ignore_patterns(folder))
    entries = importlib.metadata.entry_points(group="specdec")
    kept = {entry.name: entry.value for entry in entries if entry.value.startswith("specdec_plug")}
    assert kept.pop(folder) == f"specdec_plugins.{folder}"
    lines = [f"{name} = {value}\n" for name, value in kept.items()]
    version = f"Version: {specdec.__version__}\n"
    # Whatever it is installed as: the first of a name on the path counts.
    for name in {e.dist.name for e in entries if e.dist and e.value.startswith("specdec_plug")}:
        info = site / f"{name.replace('-', '_')}-{specdec.__version__}.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text("".join(["[specdec]\n", *lines]))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\n{version}")
    return site


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What happens without each folder."""
    base = tmp_path_factory.mktemp("sites")
    sites = [base / folder for folder in FOLDERS]
    for site in sites:
        site.mkdir()
        site_without(site.name, site)
    command = [sys.executable, "-W", "ignore", Path(__file__).with_name("without_plugin.py")]
    done = subprocess.run([*command, *sites], capture_output=True, text=True, cwd=base)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert all(found[site.name]["from"] == [str(site)] * 2 for site in sites)
    return found


def expected(folder: str) -> tuple[set[str], dict[str, str], set[str]]:
    """The strategies that are gone with a folder; for those that name a part of it, that part;
    the strategies that are left whole."""
    registry = Registry.load()
    gone = {name for name in registry.strategies if registry.origins["strategy", name] == folder}
    lacking = {
        name: getattr(strategy, role)
        for name, strategy in registry.strategies.items()
        for role in ROLES
        if name not in gone and registry.origins.get((role, getattr(strategy, role))) == folder
    }
    return gone, lacking, registry.strategies.keys() - gone - lacking.keys()


def test_the_folders_are_the_plugins_of_the_package() -> None:
    found = {plugin.name for plugin in Registry.load().plugins}
    assert len(FOLDERS) >= 5 and set(FOLDERS) <= found
    names = ("auto", "chain", "eagle2", "static_tree")
    assert expected("eagle")[1] == {**dict.fromkeys(names, "eagle"), "eagle3": "eagle3"}
    assert all(expected(folder)[2] >= CORE for folder in FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_without_it_every_other_strategy_decodes_like_plain(
    found: dict[str, dict[str, Any]], folder: str
) -> None:
    own, (_, _, whole) = found[folder], expected(folder)
    assert own["texts"] == dict.fromkeys(whole - HEADLESS, True)
    assert folder not in own["plugins"] and not any(own["plugins"].values())


@pytest.mark.parametrize("folder", FOLDERS)
def test_without_it_a_strategy_that_needs_a_part_of_it_says_so(
    found: dict[str, dict[str, Any]], folder: str
) -> None:
    errors, (gone, lacking, whole) = dict(found[folder]["errors"]), expected(folder)
    default = errors.pop("Engine()", None)
    for name in HEADLESS & whole:
        assert f"the drafter {name!r} needs" in errors.pop(name)
    assert errors.keys() == lacking.keys()
    for name, part in lacking.items():
        assert f"{part!r}" in errors[name] and f"The strategy {name!r} needs it" in errors[name]
        assert f"are all there: {', '.join(sorted(whole))}" in errors[name]
    if "auto" in gone:
        assert "unknown strategy 'auto'" in default and "It is the default" in default
        assert all(name in default for name in whole)
    else:
        assert default == errors.get("auto")


@pytest.mark.parametrize("folder", FOLDERS)
def test_without_it_the_suite_and_the_command_line_work(
    found: dict[str, dict[str, Any]], folder: str
) -> None:
    own, (_, lacking, whole) = found[folder], expected(folder)
    assert own["examined"].startswith("plain: ")
    assert own["listed"] == sorted(whole | lacking.keys())
    origins = Registry.load().origins.items()
    parts = {name for (kind, name), origin in origins if origin == folder and kind in ROLES}
    assert own["supported"] and not parts & set(own["supported"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_decoding_imports_no_test_tools(found: dict[str, dict[str, Any]], folder: str) -> None:
    assert found[folder]["test tools"] == []
