"""What ``specdec bench`` writes: its reports on standard output, and files by flag."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.cli.output_files import STDOUT, check_file, written
from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench.benchmark_report import Report

_EXAMPLES = {"--csv": "out.csv", "--markdown": "out.md", "--plot": "out.png", "--log": "runs.jsonl"}


def check_files(files: Iterable[tuple[str, Path | None]]) -> None:
    """Refuse before the runs what could not be written after them.

    Args:
        files: each with its flag; None for those not given.

    Raises:
        OptionError: a place that cannot be written; a picture that cannot be drawn.
    """
    for flag, path in files:
        if path is not None and not (flag == "--json" and path == STDOUT):
            _check(flag, path)


def _check(flag: str, path: Path) -> None:
    check_file(flag, path, _EXAMPLES.get(flag, "out.json"))
    if flag == "--plot":
        from specdec.bench.plot import check_plot

        check_plot(path)


def show(reports: Sequence[Report], *, as_json: bool) -> None:
    """Write the reports to standard output, as tables or as JSON."""
    from specdec.bench.report_export import all_as_json
    from specdec.bench.table import tables
    from specdec.cli import terminal

    if as_json:
        terminal.print_json(all_as_json(reports))
    else:
        terminal.stdout().print(tables(reports))


def write_files(reports: Sequence[Report], files: Mapping[str, Path | None]) -> None:
    """Write the reports, by flag, but for those to standard output.

    Raises:
        OptionError: a place that cannot be written, once the others are.
    """
    from specdec.bench.markdown import markdown
    from specdec.bench.plot import plot
    from specdec.bench.report_export import all_as_json, as_csv

    def in_text(of: Callable[[Sequence[Report]], str]) -> Callable[[Path], object]:
        return lambda path: path.write_text(of(reports), encoding="utf-8")

    writers: dict[str, Callable[[Path], object]] = {
        "--json": in_text(lambda own: json.dumps(all_as_json(own), indent=2) + "\n"),
        "--csv": in_text(as_csv),
        "--markdown": in_text(markdown),
        "--plot": lambda path: plot(reports, path),
    }
    failed: list[OptionError] = []
    for flag, path in files.items():
        if path is None or path == STDOUT:
            continue
        try:
            with written(flag, path):
                writers[flag](path)
        except OptionError as error:
            failed.append(error)
    if failed:
        raise OptionError("; ".join(map(str, failed)))
