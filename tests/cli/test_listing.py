"""``specdec strategies``, ``options`` and ``plugins``."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from specdec import Component
from specdec.cli.describe import component_options, shown_default
from specdec.plugin.registry import Registry

Command = Callable[..., Any]


class Everything(BaseModel):
    """Options of every kind."""

    size: int = Field(3, ge=1, le=9, description="how many")
    mode: Literal["fast", "slow"] = Field("fast", description="how")
    share: float | None = Field(None, gt=0, description="how much")
    nodes: tuple[tuple[int, ...], ...] = Field(((0,), (1,)), description="which")
    path: str = Field(description="where")


def test_every_strategy_is_listed_with_its_parts(run: Command) -> None:
    registry = Registry.load()
    rows = json.loads(run("strategies", "--json").stdout)["strategies"]
    assert [row["strategy"] for row in rows] == list(registry.strategies)
    for row in rows:
        chosen = registry.strategies[row["strategy"]]
        assert all(row[part] == getattr(chosen, part) for part in ("drafter", "policy", "acceptor"))
        assert row["lossless"] is True
        assert "specdec" in row["plugin"]
    table = run("strategies").stdout
    assert all(name in table for name in registry.strategies)


def test_options_of_a_strategy_come_from_its_parts_models(run: Command) -> None:
    found = json.loads(run("strategies", "eagle2", "--json").stdout)
    registry = Registry.load()
    parts = registry.components
    expected = [
        *parts["drafter"]["eagle"].options.model_fields,
        *parts["policy"]["eagle2"].options.model_fields,
    ]
    assert [row["option"] for row in found["options"]] == expected
    assert json.loads(run("options", "eagle2", "--json").stdout) == found
    table = run("options", "eagle2").stdout
    assert all(name in table for name in expected)
    assert ">= 1" in table


def test_options_of_a_part_are_shown(run: Command) -> None:
    rows = json.loads(run("options", "typical", "--json").stdout)["options"]
    assert {(row["role"], row["part"]) for row in rows} == {("acceptor", "typical")}
    assert "no options" in run("options", "match").stdout


def test_rows_tell_type_default_and_bounds() -> None:
    component = Component("any", Everything, Everything)
    rows = {
        row["option"]: (row["type"], shown_default(row), row["allowed"])
        for row in component_options("policy", component, {"size": 4}, {"tiny": {"mode": "slow"}})
    }
    assert rows == {
        "size": ("int", "4", ">= 1, <= 9"),
        "mode": ("choice", "fast; slow for tiny", "fast, slow"),
        "share": ("float or none", "none", "> 0"),
        "nodes": ("list of list of int", "[[0], [1]]", None),
        "path": ("text", "required", None),
    }


def test_unknown_name_is_told_with_the_nearest(run: Command) -> None:
    for command in ("strategies", "options"):
        result = run(command, "eagel2")
        assert result.exit_code == 2
        assert "did you mean 'eagle2'?" in result.stderr


def test_plugins_tell_origin_hooks_and_what_they_register(run: Command) -> None:
    found = json.loads(run("plugins", "--json").stdout)
    plugins = {row["name"]: row for row in found["plugins"]}
    entries = importlib.metadata.entry_points(group="specdec")
    entry = next(entry for entry in entries if entry.name == "eagle2")
    assert entry.dist is not None
    assert plugins["eagle2"]["origin"] == f"{entry.dist.name} {entry.dist.version}"
    assert plugins["builtin"]["origin"].startswith("specdec-transformers")
    assert "specdec_strategies" in plugins["eagle2"]["hooks"]
    assert plugins["eagle2"]["registers"]["policy"] == ["eagle2"]
    assert [row["name"] for row in found["models"]] == list(Registry.load().models)
    assert {row["name"]: row["model"] for row in found["models"]}["smollm2"].startswith("Hugging")
    table = run("plugins").stdout
    assert "tree_policies" in table
    assert "chat-7m" in table


def test_broken_plugin_is_listed_with_its_error(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.entry_points

    class Broken:
        name, value, dist = "wreck", "wreck", None

        def load(self) -> None:
            raise ImportError("no module named [gone]")

    def with_broken(**wanted: Any) -> list[Any]:
        return [*real(**wanted), *([Broken()] if wanted.get("group") == "specdec" else [])]

    monkeypatch.setattr(importlib.metadata, "entry_points", with_broken)
    assert "BROKEN: ImportError: no module named [gone]" in run("plugins").stdout
    rows = json.loads(run("plugins", "--json").stdout)["plugins"]
    assert {row["name"]: row["error"] for row in rows}["wreck"].startswith("ImportError")
    assert run("strategies").exit_code == 0
