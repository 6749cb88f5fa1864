"""The folder of ``specdec bench paper``: what cannot be drawn costs no results."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from specdec import Engine, bench
from specdec.cli.paper_contenders import PaperEngines
from specdec.cli.paper_files import redraw_figures, write_results
from specdec.errors import OptionError

pytest.importorskip("matplotlib")


def test_results_are_kept_where_a_figure_cannot_be_written(plain: Engine, tmp_path: Path) -> None:
    """And the error is of the figure: the results are those of a comparison."""
    engines = {"other": plain}
    prompts = [bench.Prompt("tiny", 0, tuple(tiny.PROMPTS[0]))]
    settings = bench.Settings(max_new_tokens=4, repetitions=1)
    report = bench.run(engines, prompts, settings, transformers=False)
    (tmp_path / "tasks-t0.png").mkdir()
    with pytest.raises(OptionError, match=r"--out .*tasks-t0\.png cannot be written"):
        write_results([report], PaperEngines(engines, [], {}), tmp_path)
    assert "| other |" in (tmp_path / "results.md").read_text()
    with pytest.raises(OptionError, match=r"--out .*tasks-t0\.png cannot be written"):
        redraw_figures(tmp_path)
    (tmp_path / "tasks-t0.png").rmdir()
    assert redraw_figures(tmp_path) == [tmp_path / "tasks-t0.png"]
