"""The files that ``specdec bench`` writes, by flag."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.cli.output_files import STDOUT, check_named
from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench.benchmark_report import Report

_EXAMPLES = {"--csv": "out.csv", "--markdown": "out.md", "--plot": "out.png", "--log": "runs.jsonl"}


def check_file(flag: str, path: Path | None) -> None:
    """Refuse before the runs what could not be written after them.

    Raises:
        OptionError: no file in a folder that exists; a picture that cannot be drawn.
    """
    if path is None or (flag == "--json" and path == STDOUT):
        return
    check_named(flag, path, _EXAMPLES.get(flag, "out.json"))
    if not path.parent.is_dir() or path.is_dir():
        raise OptionError(f"{flag} {path}: give a file in a folder that exists")
    if flag == "--plot":
        from specdec.bench.plot import check_plot

        check_plot(path)


def write_files(reports: Sequence[Report], files: Mapping[str, Path | None]) -> None:
    """Write the reports, by flag; JSON to stdout where that is ``-``."""
    from specdec.bench.markdown import markdown
    from specdec.bench.plot import plot
    from specdec.bench.report_export import all_as_json, as_csv
    from specdec.cli import terminal

    if files["--json"] == STDOUT:
        terminal.print_json(all_as_json(reports))
    elif path := files["--json"]:
        path.write_text(json.dumps(all_as_json(reports), indent=2) + "\n", encoding="utf-8")
    if path := files["--csv"]:
        path.write_text(as_csv(reports), encoding="utf-8")
    if path := files["--markdown"]:
        path.write_text(markdown(reports), encoding="utf-8")
    if path := files["--plot"]:
        plot(reports, path)
