"""The folder of ``specdec bench paper``: results as JSON, CSV and a page, and the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdec.cli.output_files import check_file, check_named, written
from specdec.errors import OptionError, first_line

if TYPE_CHECKING:
    from specdec.bench import Report
    from specdec.cli.paper_contenders import PaperEngines

_JSON, _CSV, _PAGE = "results.json", "results.csv", "results.md"


def make_folder(out: Path) -> None:
    """Make it, with those above it.

    Raises:
        OptionError: it cannot be made, or the results cannot be written in it.
    """
    check_named("--out", out, "results/")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--out {out} cannot be made: {error}; give another folder") from error
    for name in (_JSON, _CSV, _PAGE):
        check_file("--out", out / name, name)


def write_results(reports: Sequence[Report], compared: PaperEngines, out: Path) -> list[Path]:
    """Write everything; returns the files.

    Raises:
        OptionError: one that cannot be written; what comes before the figures is, whatever becomes
            of those.
    """
    from specdec.bench.paper_page import paper_page
    from specdec.bench.report_export import as_csv, as_json

    results = {
        "reports": [as_json(report) for report in reports],
        "ablations": list(compared.ablations),
        "left_out": dict(compared.left_out),
    }
    text = json.dumps(results, indent=1) + "\n"

    def write(name: str, text: str) -> None:
        with written("--out", out / name):
            (out / name).write_text(text, encoding="utf-8")

    def write_page(figures: Sequence[Path]) -> None:
        write(_PAGE, paper_page(reports, compared.ablations, compared.left_out, figures))

    write(_JSON, text)
    write(_CSV, as_csv(reports))
    write_page([])  # whatever becomes of the figures
    figures = _drawn(json.loads(text), out)
    write_page(figures)
    return [out / _PAGE, out / _JSON, out / _CSV, *figures]


def redraw_figures(out: Path) -> list[Path]:
    """Draw the figures of the results that are there; returns the files.

    Raises:
        OptionError: there are none, or they are something else; a figure that cannot be written.
    """
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
    return _drawn(found, out)


def _drawn(results: Mapping[str, Any], out: Path) -> list[Path]:
    """The figures, drawn in the folder."""
    from specdec.bench.figures import draw_figures

    with written("--out", out):
        return draw_figures(results, out)
