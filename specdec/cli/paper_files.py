"""The folder of ``specdec bench paper``: results as JSON, CSV and a page, and the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.cli.output_files import check_named
from specdec.errors import OptionError, first_line

if TYPE_CHECKING:
    from specdec.bench import Report
    from specdec.cli.paper_contenders import PaperEngines

_JSON, _CSV, _PAGE = "results.json", "results.csv", "results.md"


def make_folder(out: Path) -> None:
    """Make it, with those above it.

    Raises:
        OptionError: it cannot be made.
    """
    check_named("--out", out, "results/")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--out {out} cannot be made: {error}; give another folder") from error


def write_results(reports: Sequence[Report], compared: PaperEngines, out: Path) -> list[Path]:
    """Write everything; returns the files."""
    from specdec.bench.figures import draw_figures
    from specdec.bench.paper_page import paper_page
    from specdec.bench.report_export import as_csv, as_json

    results = {
        "reports": [as_json(report) for report in reports],
        "ablations": list(compared.ablations),
        "left_out": dict(compared.left_out),
    }
    text = json.dumps(results, indent=1) + "\n"
    (out / _JSON).write_text(text, encoding="utf-8")
    (out / _CSV).write_text(as_csv(reports), encoding="utf-8")

    def write_page(figures: Sequence[Path]) -> None:
        page = paper_page(reports, compared.ablations, compared.left_out, figures)
        (out / _PAGE).write_text(page, encoding="utf-8")

    write_page([])  # whatever becomes of the figures
    figures = draw_figures(json.loads(text), out)
    write_page(figures)
    return [out / _PAGE, out / _JSON, out / _CSV, *figures]


def redraw_figures(out: Path) -> list[Path]:
    """Draw the figures of the results that are there; returns the files.

    Raises:
        OptionError: there are none, or they are something else.
    """
    from specdec.bench.figures import draw_figures
    from specdec.bench.saved_results import SavedResults

    path = out / _JSON
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        SavedResults.model_validate(found)
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(
            f"--redraw: {path} holds no results of specdec bench paper ({first_line(error)}): run "
            "it without --redraw first, or give the folder of a run"
        ) from error
    return draw_figures(found, out)
