"""``specdec bench paper``: what it compares, its files, going on after a kill, its figures."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdec.bench import several_settings
from specdec.bench.report_tables import SHOWN_DEPTHS, SHOWN_RANKS
from specdec.cli.paper_contenders import PUBLISHED

pytest.importorskip("matplotlib")

Command = Callable[..., Any]

# What does not depend on how fast the machine is.
CELL = (
    "strategy", "set", "tau", "tau_interval", "identical", "new_tokens", "target_forwards",
    "draft_forwards", "alpha", "tried", "prompts",
)  # fmt: skip


def cells(out: Path) -> list[dict[str, Any]]:
    """The cells of all tables, without what is measured in seconds."""
    return [
        {name: row[name] for name in CELL}
        for report in json.loads((out / "results.json").read_text())["reports"]
        for row in [*report["results"], *report["by_set"]]
    ]


def test_every_method_that_has_what_it_needs_runs_and_the_others_are_named(paper_out: Path) -> None:
    found = json.loads((paper_out / "results.json").read_text())
    for report in found["reports"]:
        ran = [row["strategy"] for row in report["results"]]
        wanted = ["plain", "transformers", "eagle2", "static_tree", "auto", "lookup"]
        assert {*wanted, "transformers prompt lookup"} <= set(ran)
        assert not set(ran) & set(found["left_out"])
    assert {"eagle3", "draft_model"} <= set(found["left_out"])
    page = (paper_out / "results.md").read_text()
    assert all(f"- {name} did not run: " in page for name in found["left_out"])


def test_published_settings_are_the_defaults(paper_out: Path) -> None:
    reports = json.loads((paper_out / "results.json").read_text())["reports"]
    for report in reports:
        (tree,) = [r["options"]["policy"] for r in report["results"] if r["strategy"] == "eagle2"]
        assert PUBLISHED.items() <= tree.items()
    settings = [report["settings"] for report in reports]
    assert [each["temperature"] for each in settings] == [0, 1]
    assert all(each["repetitions"] == 1 for each in settings)


def check_positions(page: str, report: dict[str, Any]) -> None:
    """The table of acceptance by position has the counts of the JSON file, as far as it goes."""
    table = page.split("| acceptance by position |")[1].split("\n\n")[0]
    shown = {
        (strategy, int(rank), depth): cell
        for line in table.splitlines()[2:]
        for strategy, rank, *own in [line.strip("| ").split(" | ")]
        for depth, cell in enumerate(own, 1)
    }
    assert {strategy for strategy, _, _ in shown} >= {"eagle2", "static_tree", "auto"}
    for row in report["results"]:
        found = row["positions"] or {"tried": [], "accepted": []}
        for depth, (tried, accepted) in enumerate(zip(*found.values(), strict=True), 1):
            for rank, (n, taken) in enumerate(zip(tried, accepted, strict=True), 1):
                cell = shown.pop((row["strategy"], rank, depth), "-")
                if n and rank <= SHOWN_RANKS and depth <= SHOWN_DEPTHS:
                    assert cell == f"{taken / n:.2f} ({n})"
                else:
                    assert cell == "-"
    assert set(shown.values()) <= {"-"}


def test_files_say_the_same(paper_out: Path) -> None:
    reports = json.loads((paper_out / "results.json").read_text())["reports"]
    with (paper_out / "results.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = [
        (report["settings"]["temperature"], row)
        for report in reports
        for row in [*report["results"], *report["by_set"]]
    ]
    means = [row for report in reports for row in report["means"]]
    last = [line for line in lines if line["set"] == "mean"]
    for line, row in zip(last, means, strict=True):
        assert (line["strategy"], line["speedup"]) == (row["strategy"], str(row["speedup"]))
        assert line["tau_interval_high"] == str(row["tau_interval"][1])
    lines = [line for line in lines if line["set"] != "mean"]
    for line, (temperature, row) in zip(lines, rows, strict=True):
        assert float(line["temperature"]) == temperature
        assert (line["strategy"], line["set"]) == (row["strategy"], row["set"])
        for name in ("tau", "speedup", "tokens_per_second", "target_forwards"):
            assert line[name] == str(row[name])
        assert line["tau_interval_low"] == str(row["tau_interval"][0])
        assert [line[f"alpha_{d}"] for d, _ in enumerate(row["alpha"], 1)] == [
            str(rate) for rate in row["alpha"]
        ]
        positions = row.get("positions") or {"tried": [], "accepted": []}
        for name, table in positions.items():
            shown = {
                column: count
                for column, count in line.items()
                if column.startswith(f"positions_{name}_") and count
            }
            assert shown == {
                f"positions_{name}_{depth}_{rank}": str(count)
                for depth, own in enumerate(table, 1)
                for rank, count in enumerate(own, 1)
            }
        ece = (row["reliability"] or {}).get("ece")
        assert line["reliability_ece"] == ("" if ece is None else str(ece))
    page = (paper_out / "results.md").read_text()
    for report in reports:
        at = f"temperature {report['settings']['temperature']:g}"
        table = page.split(f"## tau, {at}\n")[1].split("\n## ")[0]
        for name, heading in (
            ("speedup", "speedup over plain decoding"),
            ("beside_transformers", "speedup over transformers' generate"),
        ):
            ratios = page.split(f"## {heading}, {at}\n")[1].split("\n## ")[0]
            for row in report["by_set"]:
                low, high = row[f"{name}_interval"]
                assert f" {row[name]:.2f}x ({low:.2f}-{high:.2f}) |" in ratios
        for row in report["results"]:
            (line,) = re.findall(rf"^\| {row['strategy']} \|.*$", table, flags=re.MULTILINE)
            own = [r["tau"] for r in report["by_set"] if r["strategy"] == row["strategy"]]
            (mean,) = [r for r in report["means"] if r["strategy"] == row["strategy"]]
            low, high = mean["tau_interval"]
            assert line.endswith(f" {mean['tau']:.2f} ({low:.2f}-{high:.2f}) |")
            shown = [cell.split()[0] for cell in line.strip("| ").split(" | ")[1:]]
            assert shown == [f"{tau:.2f}" for tau in [*own, sum(own) / len(own)]]
            if (found := row["reliability"]) and found["ece"] is not None:
                errors = page.split(f"probability of acceptance, {at}\n")[1].split("\n## ")[0]
                cells = f"| {row['strategy']} | {found['count']} | {found['ece']:.3f} |"
                assert cells in errors
        check_positions(page.split(f"## All measures, {at}\n")[1].split("\n## ")[0], report)
    images = re.findall(r"!\[.*\]\((.*)\)", page)
    assert set(images) == {path.name for path in paper_out.glob("*.png")} and len(images) == 8


def test_every_text_is_plain_decodings(paper_out: Path) -> None:
    for report in json.loads((paper_out / "results.json").read_text())["reports"]:
        greedy = report["settings"]["temperature"] == 0
        for row in report["results"]:
            assert row["identical"] or (not greedy and "transformers" in row["strategy"])
        assert report["prompts"]["turns"] == {"min": 1, "max": 2}


def test_the_same_command_again_decodes_nothing(paper: Command, paper_out: Path) -> None:
    logs = {path: path.read_bytes() for path in paper_out.glob("runs-*.jsonl")}
    before = json.loads((paper_out / "results.json").read_text())["reports"]
    assert len(logs) == 2 and paper(paper_out).exit_code == 0
    after = json.loads((paper_out / "results.json").read_text())["reports"]
    assert [report["results"] for report in after] == [report["results"] for report in before]
    assert logs == {path: path.read_bytes() for path in paper_out.glob("runs-*.jsonl")}


def test_what_became_of_draft_tokens_is_recorded_by_confidence_and_position(
    paper_out: Path,
) -> None:
    for report in json.loads((paper_out / "results.json").read_text())["reports"]:
        rows = {row["strategy"]: row for row in report["results"]}
        assert rows["plain"]["reliability"] is rows["plain"]["positions"] is None
        for label in ("eagle2", "static_tree", "auto"):
            found, tried = rows[label]["reliability"], rows[label]["positions"]["tried"]
            assert found["count"] == sum(bin["count"] for bin in found["curve"]) > 0
            assert found["count"] == sum(map(sum, tried))
            assert 0 <= found["ece"] <= 1 and abs(found["bias"]) <= found["ece"] + 1e-9
            accepted = rows[label]["positions"]["accepted"]
            alpha = zip(rows[label]["alpha"], rows[label]["tried"], strict=True)
            assert [sum(own) for own in accepted] == [round(rate * n) for rate, n in alpha]
            by_set = [row for row in report["by_set"] if row["strategy"] == label]
            parts = [row["reliability"]["count"] for row in by_set if row["reliability"]]
            assert sum(parts) == found["count"]


def test_batch_sizes_give_a_report_each_and_go_on_with_the_runs_of_the_first(
    paper: Command, tmp_path: Path
) -> None:
    few = ["--strategies", "eagle2", "--no-transformers", "--temperature", 0]
    assert paper(tmp_path, *few).exit_code == 0
    before = json.loads((tmp_path / "results.json").read_text())["reports"]
    result = paper(tmp_path, *few, "--batch-size", "1,2")
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    one, two = found["reports"]
    assert one["results"] == before[0]["results"]
    assert [each["settings"]["batch_size"] for each in (one, two)] == [1, 2]
    labels = [[row["strategy"] for row in each["results"]] for each in (one, two)]
    assert labels == [["plain", "eagle2", "transformers prompt lookup"], ["plain", "eagle2"]]
    assert "transformers prompt lookup in batches" in found["left_out"]
    assert all(row["identical"] for each in (one, two) for row in each["results"])
    work = [[row["new_tokens"] for row in each["results"][:2]] for each in (one, two)]
    assert work[0] == work[1]
    assert (tmp_path / "runs-t0-b2.jsonl").exists()
    names = {path.name for path in tmp_path.glob("*.png")}
    assert "batches-t0.png" in names and not any("-b2" in name for name in names)
    page = (tmp_path / "results.md").read_text()
    assert "## tau, temperature 0\n" in page and "## tau, temperature 0, batch 2\n" in page


def test_adding_a_temperature_goes_on_with_the_runs_of_the_first(
    paper: Command, tmp_path: Path
) -> None:
    few = ["--strategies", "eagle2", "--prompts", 1, "--no-transformers", "--no-prompt-lookup"]
    assert paper(tmp_path, *few, "--temperature", 0).exit_code == 0
    before = json.loads((tmp_path / "results.json").read_text())["reports"]
    assert paper(tmp_path, *few, "--temperature", "0,1").exit_code == 0
    after = json.loads((tmp_path / "results.json").read_text())["reports"]
    assert len(after) == 2 and after[0]["results"] == before[0]["results"]


def test_what_is_finished_is_written_before_the_next_temperature(
    paper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a kill leaves results of every temperature but the one that it cut off."""
    few = ["--strategies", "eagle2", "--prompts", 1, "--no-transformers", "--no-prompt-lookup"]
    run = several_settings.run

    def killed(*given: Any, **more: Any) -> Any:
        if (tmp_path / "runs-t0.jsonl").exists():
            raise SystemExit(137)
        return run(*given, **more)

    monkeypatch.setattr(several_settings, "run", killed)
    assert paper(tmp_path, *few, "--temperature", "0,1").exit_code == 137
    (report,) = json.loads((tmp_path / "results.json").read_text())["reports"]
    assert report["settings"]["temperature"] == 0 and not report["interrupted"]
    assert "## tau, temperature 0\n" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "tasks-t0.png").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_cells(
    paper: Command, paper_arguments: list[str], tmp_path: Path
) -> None:
    more = ["--strategies", "eagle2,static_tree", "--prompts", "4", "--threads", "1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "specdec.cli", "bench", "paper", "--out", str(killed)]
    process = subprocess.Popen([*command, *paper_arguments, *more], stderr=subprocess.DEVNULL)
    log = killed / "runs-t0.jsonl"
    try:
        while not log.exists() or log.read_bytes().count(b"\n") < 3:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = [line for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert not (killed / "results.json").exists() and len(kept) < 9

    for folder in (killed, whole):
        result = paper(folder, *more)
        assert result.exit_code == 0, result.stderr
    assert cells(killed) == cells(whole)
    assert log.read_bytes().splitlines(keepends=True)[: len(kept)] == kept


def test_a_figure_that_cannot_be_written_does_not_end_the_temperatures_to_come(
    paper: Command, tmp_path: Path
) -> None:
    (tmp_path / "tasks-t0.png").mkdir()
    result = paper(
        *(tmp_path, "--strategies", "chain", "--temperature", "0,1", "--prompts", 1),
        *("--turns", 1, "--no-transformers", "--no-prompt-lookup"),
    )
    assert result.exit_code == 2 and "tasks-t0.png" in result.stderr
    reports = json.loads((tmp_path / "results.json").read_text())["reports"]
    assert [report["settings"]["temperature"] for report in reports] == [0, 1]
    assert not any(report["interrupted"] for report in reports)


def test_ablations_change_one_thing_each(paper: Command, tmp_path: Path) -> None:
    result = paper(
        *(tmp_path, "--strategies", "eagle2,auto", "--ablations", "--temperature", 0),
        *("--prompts", 1, "--turns", 1, "--no-transformers", "--no-prompt-lookup"),
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {row["strategy"]: row for row in found["reports"][0]["results"]}
    assert set(rows) == {"plain", "eagle2", "auto", *found["ablations"]}
    assert all(row["identical"] for row in rows.values())
    changed = {}
    for label in found["ablations"]:
        own, base = (rows[each]["options"]["policy"] for each in (label, label.partition(":")[0]))
        changed[label] = {name: own[name] for name in own if own[name] != base[name]}
    both = changed.pop("eagle2:neither")
    assert both == {"score": "confidence", "rerank": False}
    assert all(len(change) == 1 for change in changed.values())
    values = [(name, value) for change in changed.values() for name, value in change.items()]
    for wanted in (("score", "confidence"), ("rerank", False), ("calibrated", False),
                   ("coupled", False), ("size_by_cost", False)):  # fmt: skip
        assert wanted in values
    for swept in ("budget", "depth", "top_k"):
        assert len([name for name, _ in values if name == swept]) >= 3
        assert (tmp_path / f"{swept}-t0.png").stat().st_size > 1000
