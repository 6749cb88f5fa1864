"""``specdec bench paper --redraw``: the figures again, from results.json alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

Command = Callable[..., Any]


def test_figures_are_drawn_again_from_the_results_alone(
    run: Command, paper_out: Path, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_bytes((paper_out / "results.json").read_bytes())
    result = run("bench", "paper", "--out", tmp_path, "--redraw")
    assert result.exit_code == 0, result.stderr
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert drawn == {path.name: path.read_bytes() for path in paper_out.glob("*.png")}
    names = ("tasks", "acceptance", "positions", "reliability")
    assert set(drawn) == {f"{name}-t{t}.png" for name in names for t in (0, 1)}


@pytest.mark.parametrize("text", [None, "nonsense", "[]", "{}", '{"reports": [{}]}'])
def test_redraw_needs_results(run: Command, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    result = run("bench", "paper", "--out", tmp_path, "--redraw")
    assert result.exit_code == 2
    assert "holds no results of specdec bench paper" in result.stderr


OTHER_SHAPES = [
    {"reports": [{"results": [{"strategy": "a"}], "settings": {"temperature": 0}}]},
    {"reports": [{"results": ["a"], "settings": {"temperature": 0}}]},
    {"reports": [{"results": {"a": 1}, "settings": {"x": 0}}]},
    {"reports": {"a": 1}},
]


@pytest.mark.parametrize("results", OTHER_SHAPES)
def test_results_of_another_shape_are_one_message(
    run: Command, tmp_path: Path, results: Any
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results))
    result = run("bench", "paper", "--out", tmp_path, "--redraw")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert "holds no results of specdec bench paper" in result.stderr


def test_redraw_refuses_flags_that_would_change_nothing(run: Command, paper_out: Path) -> None:
    result = run("bench", "paper", "--out", paper_out, "--redraw", "--prompts", 3, "-m", "x")
    assert result.exit_code == 2
    assert "--model, --prompts would change nothing" in result.stderr
