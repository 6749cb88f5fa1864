"""The card of a run, with its curves where matplotlib is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_the_card_has_curves_where_they_can_be_drawn(
    trained: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    trained(tau_every=1, tau_tokens=4)
    head = tmp_path / "head"
    assert (head / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "![curves](curves.png)" in (head / "README.md").read_text()


def test_what_a_row_says_of_itself_stays_one_cell(
    trained: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(data.read_text().replace('"toy"', '"a|b"'))
    trained(data=path, command="specdec train eagle")
    card = (tmp_path / "head" / "README.md").read_text()
    assert "| a\\|b | MIT | 60 |" in card and "```sh\nspecdec train eagle\n```" in card


def test_the_card_says_what_was_used_and_no_default_without_a_value(
    trained: Callable[..., Any], tmp_path: Path
) -> None:
    trained(options={"recipe": "unrolled"})
    card = (tmp_path / "head" / "README.md").read_text()
    assert "| feature_weight | 0.1 |" in card and "| cross_entropy_weight | 1.0 |" in card
    assert "None" not in card


def test_the_card_says_what_takes_the_head_and_how_much_memory_it_took(
    trained: Callable[..., Any], tmp_path: Path
) -> None:
    for recipe, strategy in (("unrolled", "eagle2"), ("eagle3", "eagle3")):
        summary = trained(options={"recipe": recipe}, out=tmp_path / recipe, steps=1)
        card = (tmp_path / recipe / "README.md").read_text()
        assert summary.strategy == strategy and f"`--strategy {strategy}`" in card
        assert f"| peak memory | {summary.peak_memory / 1e9:.1f} GB |" in card
