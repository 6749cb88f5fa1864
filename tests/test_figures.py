"""The figures of a comparison: what they draw of its results, and that lines can be told apart."""

from __future__ import annotations

from typing import Any

import pytest

from specdec.bench.figure_batches import batches
from specdec.bench.figure_style import COLOURS, bars, headline, marked_line, new_figure
from specdec.bench.figure_sweep import sweep

pytest.importorskip("matplotlib")

BUDGETS = (5, 10, 20)


def report(batch_size: int = 1, **changes: Any) -> dict[str, Any]:
    """Trees of three sizes; measures of all prompts together are others than the means."""
    labels = [f"eagle2:{budget}" for budget in BUDGETS]
    pooled = {"tau": 9.0, "speedup": 9.0, "tokens_per_second": 50.0 * batch_size, "prompts": 4}
    means = [
        {
            "strategy": label,
            "tau": 2.0 + index,
            "tau_interval": [1.5 + index, 2.25 + index],
            "speedup": (1.0 + index) / batch_size,
            "speedup_interval": [(0.5 + index) / batch_size, (1.25 + index) / batch_size],
        }
        for index, label in enumerate(labels)
    ]
    results = [
        {**pooled, "strategy": label, "parts": {}, "options": {"policy": {"budget": budget}}}
        for label, budget in zip(labels, BUDGETS, strict=True)
    ]
    settings = {"temperature": 0.0, "batch_size": batch_size, "max_new_tokens": 128}
    about = {"model": "org/m", "dtype": "float32", "device": "cpu", "date": "2026-11-30T00:00"}
    return {"results": results, "means": means, "settings": settings, **about, **changes}


def drawn(axes: Any) -> list[tuple[list[float], list[tuple[float, float]]]]:
    """The heights of each line, and the ends of its bars."""
    return [
        (
            list(lines[0].get_ydata()),
            [(low[1], high[1]) for each in lines[2] for low, high in each.get_segments()],
        )
        for lines in axes.containers
    ]


def test_a_sweep_shows_the_means_of_the_tables_with_their_intervals() -> None:
    figure = sweep(report(), "budget")
    assert figure is not None
    tau, speedup = map(drawn, figure.axes)
    assert tau == [([2, 3, 4], [(1.5, 2.25), (2.5, 3.25), (3.5, 4.25)])]
    assert speedup == [([1, 2, 3], [(0.5, 1.25), (1.5, 2.25), (2.5, 3.25)])]
    assert "speedup" in figure.axes[1].get_ylabel()


def test_batches_show_the_mean_speedup_with_its_interval() -> None:
    figure = batches([report(4), report(1)], ["eagle2:5", "eagle2:10"])
    assert figure is not None
    rates, speedups = map(drawn, figure.axes)
    assert rates == [([50, 200], [])] * 2
    assert speedups == [
        ([1, 0.25], [(0.5, 1.25), (0.125, 0.3125)]),
        ([2, 0.5], [(1.5, 2.25), (0.375, 0.5625)]),
    ]


def test_bars_are_left_out_where_there_is_no_interval() -> None:
    assert bars([{"tau": 1.0}, {"tau": 2.0, "tau_interval": None}], "tau") is None
    rows: list[dict[str, Any]] = [
        {"tau": 1.0, "tau_interval": None},
        {"tau": 2.0, "tau_interval": [1.5, 3.0]},
    ]
    assert bars(rows, "tau") == [[0, 0.5], [0, 1]]


def test_lines_of_one_colour_differ_in_mark_and_filling_too() -> None:
    styles = [marked_line(index) for index in range(2 * len(COLOURS))]
    assert len({(each["marker"], each.get("markerfacecolor")) for each in styles}) == len(styles)
    for first, second in zip(styles, styles[len(COLOURS) :], strict=False):
        assert first["color"] == second["color"] and first["marker"] != second["marker"]
        assert first["linestyle"] != second["linestyle"]


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({}, ""),
        ({"pack": True}, ", packed"),
        ({"pack": True, "compile": True}, ", packed, compiled"),
    ],
    ids=["as it is", "packed", "packed and compiled"],
)
def test_a_headline_says_what_was_done_to_the_networks_and_how_long_answers_were(
    changes: dict[str, Any], done: str
) -> None:
    figure = new_figure(2)
    headline(figure, report(**changes), "marks: prompts")
    assert figure.get_suptitle() == (
        f"m, float32 on cpu{done}, 2026-11-30\n"
        "temperature 0, at most 128 new tokens a turn\nmarks: prompts"
    )
