"""The folder of ``specdec bench paper``: results as JSON, CSV and a page, and the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench import Report
    from specdec.cli.paper_contenders import Lineup

_JSON, _CSV, _PAGE = "results.json", "results.csv", "results.md"
# What reading results of another shape raises, somewhere in the figures.
_OF_ANOTHER_SHAPE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError,
)  # fmt: skip


def make_folder(out: Path) -> None:
    """Make it, with those above it.

    Raises:
        OptionError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--out {out} cannot be made: {error}; give another folder") from error


def write_results(reports: Sequence[Report], lineup: Lineup, out: Path) -> list[Path]:
    """Write everything; returns the files."""
    from specdec.bench.paper_page import paper_page
    from specdec.bench.report_export import as_csv, as_json

    results = {
        "reports": [as_json(report) for report in reports],
        "ablations": list(lineup.ablations),
        "left_out": dict(lineup.left_out),
    }
    text = json.dumps(results, indent=1) + "\n"
    (out / _JSON).write_text(text, encoding="utf-8")
    (out / _CSV).write_text(as_csv(reports), encoding="utf-8")
    figures = _draw(json.loads(text), out)
    page = paper_page(reports, lineup.ablations, lineup.left_out, figures)
    (out / _PAGE).write_text(page, encoding="utf-8")
    return [out / _PAGE, out / _JSON, out / _CSV, *figures]


def _draw(results: Mapping[str, Any], out: Path) -> list[Path]:
    from specdec.bench.figures import draw_figures

    return draw_figures(results, out)


def redraw_figures(out: Path) -> list[Path]:
    """Draw the figures of the results that are there; returns the files.

    Raises:
        OptionError: there are none, or they are something else.
    """
    path = out / _JSON
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all(each["results"] and each["settings"] for each in found["reports"]):
            raise ValueError("a report without results")
        return _draw(found, out)
    except _OF_ANOTHER_SHAPE as error:
        raise OptionError(
            f"--redraw: {path} holds no results of specdec bench paper ({error!r}): run it without "
            "--redraw first, or give the folder of a run"
        ) from error
