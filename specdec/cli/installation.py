"""What is installed: packages against what specdec asks for, extras, plugins, and what is wrong."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

import specdec
from specdec.errors import DISTRIBUTION, SpecdecError
from specdec.plugin.manager import PluginInfo
from specdec.plugin.registry import Registry

_TAKEN = "specdec"  # the name on the registry of another project, whose module is called so too


def examined() -> dict[str, Any]:
    """Packages, extras, plugins and problems, as JSON."""
    requirements = list(_requirements())
    packages = [*_own(), *(_package(each) for each, extra in requirements if not extra)]
    problems = [
        f"{each['name']} {each['version']} is {each['state']}: specdec wants {each['wanted']}"
        for each in packages
        if each["state"]
    ]
    if not requirements:
        problems.append(
            f"specdec is imported from {Path(specdec.__file__).parent} and {DISTRIBUTION} is not "
            "installed, so the plugins that come with it may not be found: pip install it"
        )
    if _version(_TAKEN) and _is_another_project():
        problems.append(
            f"the package {_TAKEN}, another project, is installed too, and each overwrites files "
            f"of the other: pip uninstall {_TAKEN} {DISTRIBUTION}, then pip install {DISTRIBUTION}"
        )
    plugins: list[PluginInfo] = []
    try:
        plugins = Registry.load().plugins
    except SpecdecError as error:
        problems.append(str(error))
    problems += [
        f"the plugin {each.name} does not load: {each.error}" for each in plugins if each.error
    ]
    return {
        "packages": packages,
        "extras": _extras(requirements),
        "plugins": [asdict(each) for each in plugins],
        "problems": problems,
    }


def _own() -> list[dict[str, str]]:
    own = _row(DISTRIBUTION, specdec.__version__, "")
    return [
        {**own, "folder": str(Path(specdec.__file__).parent)},
        _row("python", platform.python_version(), _asked_of_python()),
    ]


def _asked_of_python() -> str:
    try:
        return importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return ""


def _requirements() -> Iterator[tuple[Requirement, str]]:
    """What the distribution asks for, each with its extra, or an empty string."""
    try:
        asked = importlib.metadata.requires(DISTRIBUTION) or []
        extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for text in asked:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield requirement, ""
            continue
        for extra in extras:
            if marker.evaluate({"extra": extra}):
                yield requirement, extra


def _package(requirement: Requirement) -> dict[str, str]:
    found, wanted = _version(requirement.name), str(requirement.specifier)
    if found is None:
        return _row(requirement.name, "", wanted, "missing")
    within = requirement.specifier.contains(found, prereleases=True)
    return _row(requirement.name, found, wanted, "" if within else "not what was asked for")


def _extras(requirements: list[tuple[Requirement, str]]) -> dict[str, list[str]]:
    """By extra what of it is missing."""
    found: dict[str, list[str]] = {}
    for requirement, extra in requirements:
        if extra:
            missing = found.setdefault(extra, [])
            if requirement.name != DISTRIBUTION and _package(requirement)["state"]:
                missing.append(str(requirement).split(";")[0].strip())
    for requirement, extra in requirements:
        if requirement.name == DISTRIBUTION and extra:  # an extra that asks for others
            for other in requirement.extras:
                found[extra] += [each for each in found.get(other, []) if each not in found[extra]]
    return found


def _is_another_project() -> bool:
    """Whether what is installed under that name has none of specdec's plugins."""
    entries = importlib.metadata.distribution(_TAKEN).entry_points
    return not any(entry.group == "specdec" for entry in entries)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _row(name: str, version: str, wanted: str, state: str = "") -> dict[str, str]:
    return {"name": name, "version": version, "wanted": wanted, "state": state}
