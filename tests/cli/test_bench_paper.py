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

from specdec.cli.paper_contenders import PUBLISHED

pytest.importorskip("matplotlib")

Command = Callable[..., Any]

# What does not depend on how fast the machine is.
CELL = (
    "strategy", "set", "tau", "tau_interval", "identical", "new_tokens", "target_forwards",
    "draft_forwards", "alpha", "tried", "prompts",
)  # fmt: skip


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks as EAGLE has them, one of two turns."""
    root = tmp_path_factory.mktemp("data")
    rows = {
        "chat": [{"category": "writing", "turns": [a, b]} for a, b in ("AB", "CD", "EF", "GH")],
        "qa": [{"category": "qa", "turns": [text]} for text in ("HELLO", "ABCABC", "XYZ", "Q")],
    }
    for name, own in rows.items():
        (root / name).mkdir()
        lines = "\n".join(map(json.dumps, own))
        (root / name / "question.jsonl").write_text(lines, encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def arguments(folder: Path, head: Path, data: Path) -> list[str]:
    """Of a small run: two prompts a task, six tokens a turn."""
    fixed: list[Any] = ["-m", folder, "--data", data, "--prompts", 2, "--max-new-tokens", 6]
    return [str(each) for each in [*fixed, "-o", f"drafter={head}"]]


@pytest.fixture(scope="session")
def paper(run: Command, arguments: list[str]) -> Command:
    """``specdec bench paper`` on the tiny target with its EAGLE head."""
    return lambda out, *more: run("bench", "paper", "--out", out, *arguments, *more)


@pytest.fixture(scope="session")
def out(paper: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of every method at two temperatures."""
    folder = tmp_path_factory.mktemp("paper") / "new" / "results"
    result = paper(folder)
    assert result.exit_code == 0, result.stderr
    return folder


def cells(out: Path) -> list[dict[str, Any]]:
    """The cells of all tables, without what is measured in seconds."""
    return [
        {name: row[name] for name in CELL}
        for report in json.loads((out / "results.json").read_text())["reports"]
        for row in [*report["results"], *report["by_set"]]
    ]


def test_every_method_that_has_what_it_needs_runs_and_the_others_are_named(out: Path) -> None:
    found = json.loads((out / "results.json").read_text())
    for report in found["reports"]:
        ran = [row["strategy"] for row in report["results"]]
        wanted = ["plain", "transformers", "eagle2", "static_tree", "auto", "lookup"]
        assert {*wanted, "transformers prompt lookup"} <= set(ran)
        assert not set(ran) & set(found["left_out"])
    assert {"eagle3", "draft_model"} <= set(found["left_out"])
    page = (out / "results.md").read_text()
    assert all(f"- {name} did not run: " in page for name in found["left_out"])


def test_published_settings_are_the_defaults(out: Path) -> None:
    for report in json.loads((out / "results.json").read_text())["reports"]:
        (tree,) = [r["options"]["policy"] for r in report["results"] if r["strategy"] == "eagle2"]
        assert PUBLISHED.items() <= tree.items()
    settings = [r["settings"] for r in json.loads((out / "results.json").read_text())["reports"]]
    assert [each["temperature"] for each in settings] == [0, 1]
    assert all(each["repetitions"] == 1 for each in settings)


def test_files_say_the_same(out: Path) -> None:
    reports = json.loads((out / "results.json").read_text())["reports"]
    with (out / "results.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = [
        (report["settings"]["temperature"], row)
        for report in reports
        for row in [*report["results"], *report["by_set"]]
    ]
    assert len(lines) == len(rows)
    for line, (temperature, row) in zip(lines, rows, strict=True):
        assert float(line["temperature"]) == temperature
        assert (line["strategy"], line["set"]) == (row["strategy"], row["set"])
        for name in ("tau", "speedup", "tokens_per_second", "target_forwards"):
            assert line[name] == str(row[name])
        assert line["tau_interval_low"] == str(row["tau_interval"][0])
        assert [line[f"alpha_{d}"] for d, _ in enumerate(row["alpha"], 1)] == [
            str(rate) for rate in row["alpha"]
        ]
        ece = (row["reliability"] or {}).get("ece")
        assert line["reliability_ece"] == ("" if ece is None else str(ece))
    page = (out / "results.md").read_text()
    for report in reports:
        at = f"temperature {report['settings']['temperature']:g}"
        table = page.split(f"## tau, {at}\n")[1].split("\n## ")[0]
        for row in report["results"]:
            (line,) = re.findall(rf"^\| {row['strategy']} \|.*$", table, flags=re.MULTILINE)
            own = [r["tau"] for r in report["by_set"] if r["strategy"] == row["strategy"]]
            shown = [cell.split()[0] for cell in line.strip("| ").split(" | ")[1:]]
            assert shown == [f"{tau:.2f}" for tau in [*own, sum(own) / len(own)]]
            if (found := row["reliability"]) and found["ece"] is not None:
                errors = page.split(f"probability of acceptance, {at}\n")[1].split("\n## ")[0]
                cells = f"| {row['strategy']} | {found['count']} | {found['ece']:.3f} |"
                assert cells in errors
    images = re.findall(r"!\[.*\]\((.*)\)", page)
    assert set(images) == {path.name for path in out.glob("*.png")} and len(images) == 8


def test_every_text_is_plain_decodings(out: Path) -> None:
    for report in json.loads((out / "results.json").read_text())["reports"]:
        greedy = report["settings"]["temperature"] == 0
        for row in report["results"]:
            assert row["identical"] or (not greedy and "transformers" in row["strategy"])
        assert report["prompts"]["turns"] == {"min": 1, "max": 2}


def test_the_same_command_again_decodes_nothing(paper: Command, out: Path) -> None:
    logs = {path: path.read_bytes() for path in out.glob("runs-*.jsonl")}
    before = json.loads((out / "results.json").read_text())["reports"]
    assert len(logs) == 2 and paper(out).exit_code == 0
    after = json.loads((out / "results.json").read_text())["reports"]
    assert [report["results"] for report in after] == [report["results"] for report in before]
    assert logs == {path: path.read_bytes() for path in out.glob("runs-*.jsonl")}


def test_what_became_of_draft_tokens_is_recorded_by_confidence_and_position(out: Path) -> None:
    for report in json.loads((out / "results.json").read_text())["reports"]:
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


def test_figures_are_drawn_again_from_the_results_alone(
    run: Command, out: Path, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_bytes((out / "results.json").read_bytes())
    result = run("bench", "paper", "--out", tmp_path, "--redraw")
    assert result.exit_code == 0, result.stderr
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert drawn == {path.name: path.read_bytes() for path in out.glob("*.png")}
    names = ("tasks", "acceptance", "positions", "reliability")
    assert set(drawn) == {f"{name}-t{t}.png" for name in names for t in (0, 1)}


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_cells(
    paper: Command, arguments: list[str], tmp_path: Path
) -> None:
    more = ["--strategies", "eagle2,static_tree", "--prompts", "4", "--threads", "1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "specdec.cli", "bench", "paper", "--out", str(killed)]
    process = subprocess.Popen([*command, *arguments, *more], stderr=subprocess.DEVNULL)
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
                   ("coupled", False), ("costs", False)):  # fmt: skip
        assert wanted in values
    for swept in ("budget", "depth", "top_k"):
        assert len([name for name, _ in values if name == swept]) >= 3
        assert (tmp_path / f"{swept}-t0.png").stat().st_size > 1000


MISTAKES = [
    (["--strategies", "lookup", "--ablations"], "--ablations need one of the strategies"),
    (["--strategies", "eagle3"], "eagle3"),
    (["--strategies", "eagel2"], "did you mean 'eagle2'?"),
    (["--temperature", "0,x"], "give a number, or several with commas"),
    (["--temperature", "0,0"], "each once"),
    (["--temperature", "0,-1"], "temperature=-1.0"),
    (["--batch-size", "2,4", "--prompt-lookup"], "one row at a time"),
    (["--batch-size", "1,x"], "give a whole number, or several with commas"),
    (["--batch-size", "2,2"], "batch sizes 2, 2: give at least one, and each once"),
    (["--batch-size", "0"], "batch_size=0"),
    (["--peers", "eagle.chekout=x"], "did you mean 'eagle.checkout'?"),
    (["--peers", "eagle.checkout=nowhere"], "there is no eagle/model/ea_model.py in it"),
    (["--peers", "eagle.python=python"], "needs --peers eagle.checkout=CHECKOUT too"),
    (["--peers", "vllm.python=no-python"], "there is no such interpreter"),
    (["--peers", "vllm.python=python", "--set", "top_k=3"], "leave out --set top_k"),
    (["--data", "nowhere"], "there is no file or folder nowhere"),
    (["-o", "eagle2.policy.budgt=3"], "did you mean 'budget'?"),
    (["-o", "lookup.drafter.floor=7"], "floor"),
    (["-o", "eagle2.policy.budget=0"], "budget"),
    (["-o", "policy.budget=0"], "budget"),
    (["-o", "eagle2.drafter=/typo"], "/typo"),
    (["-o", "drafter=/typo"], "/typo"),
    (["-o", "eagle3.drafter.dtype=float64"], "'eagle3' needs"),
]


@pytest.mark.parametrize(("more", "message"), MISTAKES)
def test_mistake_is_one_message_and_exit_code_2(
    paper: Command, tmp_path: Path, more: list[str], message: str
) -> None:
    result = paper(tmp_path / "out", *more)
    assert (result.exit_code, result.stdout) == (2, "")
    *before, last = result.stderr.splitlines()
    assert last.startswith("error: ") and message in last
    assert all(line.startswith("left out: ") for line in before)


def test_what_is_left_out_is_told_before_the_first_run(
    paper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("specdec.cli.bench_paper.measure", refuse)
    result = paper(tmp_path)
    assert result.exit_code == 130 and result.stdout == ""
    assert re.search("^left out: eagle3: the drafter 'eagle3' needs", result.stderr, re.MULTILINE)


def test_larger_batches_do_without_prompt_lookup_unless_it_is_asked_for(
    paper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("specdec.cli.bench_paper.measure", refuse)
    few = ["--strategies", "eagle2", "--batch-size", 2]
    told = "left out: transformers prompt lookup in batches: it decodes one row at a time"
    for more, reasons in (([], [told]), (["--no-prompt-lookup"], [])):
        result = paper(tmp_path, *few, *more)
        assert result.exit_code == 130
        assert [line for line in result.stderr.splitlines() if "left out" in line] == reasons


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


def test_redraw_refuses_flags_that_would_change_nothing(run: Command, out: Path) -> None:
    result = run("bench", "paper", "--out", out, "--redraw", "--prompts", 3, "-m", "x")
    assert result.exit_code == 2
    assert "--model, --prompts would change nothing" in result.stderr


def test_options_before_the_subcommand_are_refused(run: Command, tmp_path: Path) -> None:
    result = run("bench", "--prompts", 3, "paper", "--out", tmp_path)
    assert result.exit_code == 2
    assert "--prompts given before 'paper'" in result.stderr


def test_help_says_where_the_six_tasks_come_from(run: Command) -> None:
    result = run("bench", "paper", "--help")
    assert result.exit_code == 0
    assert "eagle/data" in result.stdout and "question.jsonl" in result.stdout


# Stands for a checkout of the official code: the same calls, and greedy decoding behind them.
OFFICIAL = """
from types import SimpleNamespace
import torch
from transformers import AutoModelForCausalLM

class EaModel:
    @classmethod
    def from_pretrained(cls, base_model_path, torch_dtype, **_):
        own = cls()
        own.model = AutoModelForCausalLM.from_pretrained(base_model_path, dtype=torch_dtype)
        own.ea_layer = SimpleNamespace(init_tree=lambda: None)
        return own

    def eval(self):
        return self

    def eagenerate(self, ids, temperature, max_new_tokens, max_length, log):
        assert temperature == 0 and self.ea_layer.total_tokens == 60
        output = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0,
            max_new_tokens=max_new_tokens + 1, eos_token_id=None,
        )
        return output, max_new_tokens, 3
"""


@pytest.mark.slow
def test_the_papers_comparison_with_the_official_code(paper: Command, tmp_path: Path) -> None:
    checkout, out = tmp_path / "checkout", tmp_path / "out"
    (checkout / "eagle" / "model").mkdir(parents=True)
    (checkout / "eagle" / "model" / "ea_model.py").write_text(OFFICIAL, encoding="utf-8")
    result = paper(
        *(out, "--prompts", 1, "--turns", 1, "--strategies", "eagle2", "--temperature", 0),
        *("--no-transformers", "--no-prompt-lookup", "--peers", f"eagle.checkout={checkout}"),
    )
    assert result.exit_code == 0, result.stderr
    (report,) = json.loads((out / "results.json").read_text())["reports"]
    rows = {row["strategy"]: row for row in report["results"]}
    assert list(rows) == ["plain", "eagle2", "official eagle2"]
    official = rows["official eagle2"]
    assert official["identical"] and official["tau"] == official["new_tokens"] / (2 * 5)
    assert "| official eagle2 |" in (out / "results.md").read_text()
    assert str(tmp_path) not in json.dumps(official)
