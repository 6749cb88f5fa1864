"""Write the picture of the folders into docs/architecture.md, from import contract and imports.

Folders stand in the order of the import contract "the layers of specdec". An arrow is an import;
one that follows from others (a imports b, b imports c) is left out. ``--check`` fails if stale.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import generated

if sys.version_info >= (3, 11):
    import tomllib
else:  # it comes with import-linter and mypy
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- house: scripts/make_house_picture.py -->\n", "<!-- /house -->\n"
PLUGINS = "specdec_plugins"

Imports = Mapping[str, frozenset[str]]


def layers(root: Path = ROOT) -> list[list[str]]:
    """The contract's layers, the highest first, each with the folders and modules in it."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["type"] == "layers"]
    return [re.split(r"\s*[|:]\s*", layer) for layer in contract["layers"]]


def imports(root: Path = ROOT) -> Imports:
    """For each folder and module of specdec, and for the plugins, what it imports of specdec."""
    names = {name for layer in layers(root) for name in layer}
    found: dict[str, set[str]] = {name: set() for name in (*names, PLUGINS)}
    public = _public(root / "specdec" / "__init__.py")
    for path in (root / "specdec").rglob("*.py"):
        own = path.relative_to(root / "specdec").with_suffix("").parts[0]
        if own in names:
            found[own] |= set(_imported(path, names, public)) - {own}
    for path in (root / "plugins").rglob("*.py"):
        found[PLUGINS] |= set(_imported(path, names, public))
    return {name: frozenset(below) for name, below in found.items()}


def _imported(path: Path, names: set[str], public: Mapping[str, str]) -> Iterator[str]:
    """The parts of specdec that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            head, *rest = module.split(".")
            if head == "specdec" and rest:
                name = public.get(rest[0], rest[0])
                if name in names:
                    yield name


def _public(package: Path) -> Mapping[str, str]:
    """The part of specdec that each name comes from that specdec itself exports."""
    tree = ast.parse(package.read_text(encoding="utf-8"))
    return {
        alias.name: node.module.split(".")[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("specdec.")
        for alias in node.names
    }


def reduced(imported: Imports) -> Imports:
    """The same without the arrows that follow from others."""

    def reach(name: str) -> frozenset[str]:
        below = imported.get(name, frozenset())
        return below.union(*map(reach, below))

    return {
        name: below - frozenset[str]().union(*map(reach, below)) for name, below in imported.items()
    }


def picture(root: Path = ROOT) -> str:
    """The picture in the language of Mermaid."""
    arrows, order = reduced(imports(root)), layers(root)
    lines = ["```mermaid", "flowchart TD"]
    for layer in order:
        for name in layer:
            folder = (root / "specdec" / name).is_dir()
            lines.append(f'  {name}["{name}/"]' if folder else f"  {name}({name})")
    lines.append(f'  {PLUGINS}[["plugins/"]]')
    for name in (PLUGINS, *(name for layer in order for name in layer)):
        below = [other for layer in order for other in layer if other in arrows[name]]
        if below:
            lines.append(f"  {name} --> {' & '.join(below)}")
    return "\n".join([*lines, "```"]) + "\n"


def page() -> str:
    """The page with the picture made anew."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + picture() + END + rest.split(END)[1]


if __name__ == "__main__":
    sys.exit(generated.main(__doc__, PAGE, page))
