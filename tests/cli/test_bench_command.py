"""``specdec bench``: its tables and files, its labels and options, its mistakes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from specdec.bench import runner
from specdec.bench.benchmark_report import AGAIN
from specdec.cli import failures, terminal
from specdec.cli.compared_engines import choose_labelled
from specdec.errors import SpecdecError
from specdec.plugin.registry import Registry

Command = Callable[..., Any]

FIELDS = {
    "strategy": str,
    "tau": float,
    "tokens_per_second": float,
    "speedup": float,
    "identical": bool,
    "target_forwards": int,
    "draft_forwards": int,
    "seconds": dict,
    "peak_memory_bytes": int,
}
ABOUT = {"settings": dict, "machine": dict, "versions": dict, "date": str, "noise": dict}


@pytest.fixture(scope="session")
def bench(run: Command, folder: Path, head: Path) -> Command:
    """``specdec bench`` on the tiny target: two prompts, six tokens, one repetition."""
    data = folder / "sets"
    data.mkdir(exist_ok=True)
    (data / "letters.jsonl").write_text('{"prompt": "HELLO"}\n{"prompt": "ABCABC"}\n')

    def invoke(*args: Any, strategies: str = "eagle2", head: Path | None = head) -> Any:
        fixed = ["-m", folder, "--data", data, "--prompts", 2, "--max-new-tokens", 6]
        parts = ["-o", f"drafter={head}"] if head else []
        return run("bench", *fixed, "--repetitions", 1, "--strategies", strategies, *parts, *args)

    return invoke


def test_json_on_stdout_is_one_object_and_nothing_else(bench: Command) -> None:
    result = bench("--json", "-")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [row["strategy"] for row in found["results"]] == ["plain", "transformers", "eagle2"]
    for row in found["results"]:
        assert {name: type(row[name]) for name in FIELDS} == FIELDS
    assert {name: type(found[name]) for name in ABOUT} == ABOUT
    assert all(row["identical"] for row in found["results"])


def test_variants_of_a_strategy_run_side_by_side(bench: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    variant = ["-o", "policy.depth=3", "-o", "eagle2:wide.policy.top_k=7"]
    result = bench(*variant, "--json", out, strategies="eagle2,eagle2:wide,chain")
    assert result.exit_code == 0, result.stderr
    found = {row["strategy"]: row for row in json.loads(out.read_text())["results"]}
    options = {label: found[label]["options"]["policy"] for label in list(found)[2:]}
    assert {o["depth"] for o in options.values()} == {3}
    assert options["eagle2:wide"]["top_k"] == 7 != options["eagle2"]["top_k"]
    assert "chain" in result.stdout and "wide" in result.stdout


def test_every_file_is_written(bench: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = {"--json": "a.json", "--csv": "a.csv", "--markdown": "a.md", "--plot": "a.png"}
    flags = [x for flag, name in names.items() for x in (flag, tmp_path / name)]
    result = bench(*flags, "--no-transformers")
    assert result.exit_code == 0, result.stderr
    assert all((tmp_path / name).stat().st_size > 100 for name in names.values())
    assert "transformers |" not in (tmp_path / "a.md").read_text()


def test_several_temperatures_are_a_report_each_in_one_file(bench: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = {"--json": "a.json", "--csv": "a.csv", "--markdown": "a.md", "--plot": "a.png"}
    flags = [x for flag, name in names.items() for x in (flag, tmp_path / name)]
    log = tmp_path / "runs.jsonl"
    more = ["--temperature", "0,1", "--no-transformers"]
    result = bench(*flags, *more, "--log", log)
    assert result.exit_code == 0, result.stderr
    reports = json.loads((tmp_path / "a.json").read_text())["reports"]
    assert [report["settings"]["temperature"] for report in reports] == [0, 1]
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["temperature", *["0.0"] * 2, *["1.0"] * 2]
    assert "## All measures, temperature 1" in (tmp_path / "a.md").read_text()
    logs = {path.name: path.read_bytes() for path in tmp_path.glob("runs*")}
    assert set(logs) == {"runs-t0.jsonl", "runs-t1.jsonl"}
    for report in reports:
        at = ("--temperature", report["settings"]["temperature"])
        alone = bench("--json", "-", *at, *more[2:])
        (_, own), (_, other) = (each["results"] for each in (json.loads(alone.stdout), report))
        assert [own[name] for name in ("tau", "new_tokens", "alpha")] == [
            other[name] for name in ("tau", "new_tokens", "alpha")
        ]
        resumed = bench("--json", "-", *at, *more[2:], "--log", log)
        assert json.loads(resumed.stdout)["results"] == report["results"]
    assert logs == {path.name: path.read_bytes() for path in tmp_path.glob("runs*")}


def test_tables_fit_80_columns(
    run: Command, folder: Path, head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(
        *("bench", "-m", folder, "-o", f"drafter={head}", "--prompts", 2, "--max-new-tokens", 4),
        *("--repetitions", 2, "--strategies", "eagle2,eagle2:another-one", "--no-transformers"),
        env={"COLUMNS": "80", "NO_COLOR": "1"},
    )
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "identical" in result.stdout and "baseline" in result.stdout


MISTAKES = [
    (["--strategies", "eagel2"], "unknown strategy 'eagel2': did you mean 'eagle2'?"),
    (["--strategies", "eagle2:"], "no variant behind the colon"),
    (["--strategies", "chain,chain"], "'chain' is there twice"),
    (["-o", "chain.policy.depth=3"], "'chain' does not run here, only eagle2 do"),
    (["-o", "chian.policy.depth=3"], "unknown strategy 'chian': did you mean 'chain'?"),
    (["-o", "policy.dept=3"], "'dept': did you mean 'depth'?"),
    (["-o", "depth=3"], "write role.option=value"),
    (["-o", "policy=egale2"], "unknown policy 'egale2': did you mean 'eagle2'?"),
    (["-o", "policy.budget=none"], "policy.budget='none'"),
    (["--inflate", "240"], "unknown preset '240': did you mean '240m'?"),
    (["--data", "nowhere"], "there is no file or folder nowhere"),
    (["--json", "no/such/folder.json"], "--json no/such/folder.json: there is no folder no/such"),
    (["--plot", "a.bmp"], "a plot must end in .png"),
    (["--context", "200"], "context=200 and max_new_tokens=6 do not fit together"),
    (["--temperature", "-1"], "temperature=-1.0"),
    (["--set", "temprature=1"], "did you mean 'temperature'?"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistake_is_one_message_and_exit_code_2(
    bench: Command, arguments: list[str], message: str
) -> None:
    result = bench(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_option_goes_to_those_that_have_it() -> None:
    registry = Registry.load()
    labels = ["eagle2", "eagle2:b", "chain", "draft_model"]
    given = {
        "policy.depth": 2,
        "policy.top_k": 3,
        "eagle2:b.policy.top_k": 9,
        "draft_model.acceptor": "match",
    }
    found = choose_labelled(registry, labels, given)
    policies = {label: choice.options["policy"] for label, choice in found.items()}
    assert policies == {
        "eagle2": {"depth": 2, "top_k": 3},
        "eagle2:b": {"depth": 2, "top_k": 9},
        "chain": {"depth": 2},
        "draft_model": {"depth": 2},
    }
    swaps = {label: dict(choice.swaps) for label, choice in found.items()}
    assert swaps == {
        "eagle2": {}, "eagle2:b": {}, "chain": {}, "draft_model": {"acceptor": "match"},
    }  # fmt: skip


def test_an_option_that_none_has_is_refused() -> None:
    with pytest.raises(SpecdecError, match="top_k"):
        choose_labelled(Registry.load(), ["chain"], {"policy.top_k": 3})


def test_interrupt_shows_what_was_measured(bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    timed, calls = runner.timed, []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3 * 2 + 2:  # warm-up, one round, and a part of the next
            signal.raise_signal(signal.SIGINT)
        return timed(*args)

    monkeypatch.setattr(runner, "timed", interrupted)
    result = bench("--no-transformers")
    assert result.exit_code == 130
    assert "Interrupted: these are the runs that were finished" in result.stdout
    assert "tau" in result.stdout


def test_what_was_finished_before_a_strategy_ran_out_of_memory_is_shown_and_written(
    bench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed, calls = runner.timed, 0

    def out_of_memory(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % (3 * 2 + 2) == 0:  # warm-up, one round, and a part of the next
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return timed(*args)

    monkeypatch.setattr(runner, "timed", out_of_memory)
    out = tmp_path / "out.json"
    result = bench("--no-transformers", "--json", out)
    assert result.exit_code == 2 and "tau" in result.stdout
    told = result.stderr.splitlines()[-1]
    assert told.startswith("error: ")
    assert "CUDA out of memory; what was finished before is shown" in told
    assert json.loads(out.read_text())["failure"].endswith(": CUDA out of memory")
    result = bench("--no-transformers", "--json", "-")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["failure"].endswith(": CUDA out of memory")


def test_a_place_lost_during_the_runs_costs_neither_tables_nor_other_files(
    bench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed = runner.timed
    lost, kept = tmp_path / "out.json", tmp_path / "out.csv"

    def losing(*args: Any) -> Any:
        lost.mkdir(exist_ok=True)
        return timed(*args)

    monkeypatch.setattr(runner, "timed", losing)
    result = bench("--no-transformers", "--json", lost, "--csv", kept)
    assert result.exit_code == 2 and "tau" in result.stdout
    assert f"error: --json {lost} cannot be written (Is a directory)" in result.stderr
    assert "eagle2" in kept.read_text()


def test_files_are_written_when_nobody_reads_the_output(
    bench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unread(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(terminal, "print_json", unread)
    monkeypatch.setattr(failures, "_discard_stdout", lambda: None)  # it is the test runner's
    out = tmp_path / "out.csv"
    assert bench("--no-transformers", "--json", "-", "--csv", out).exit_code == 1
    assert "eagle2" in out.read_text()


@pytest.mark.parametrize(("seconds", "told"), [(2.0, True), (1.0, False), (0.5, True)])
def test_a_busy_machine_is_told(
    bench: Command, monkeypatch: pytest.MonkeyPatch, seconds: float, told: bool
) -> None:
    timed = runner.timed

    def at_a_fixed_speed(contender: Any, *rest: Any) -> Any:
        again = contender.label == AGAIN
        return replace(timed(contender, *rest), seconds=seconds if again else 1.0)

    monkeypatch.setattr(runner, "timed", at_a_fixed_speed)
    warning = f"plain decoding beside itself came to {1 / seconds:.2f}x: the machine is busy"
    assert (warning in bench("--no-transformers").stderr) is told


def test_inflated_figures_are_labelled(bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from specdec.bench import presets

    small = presets.Shape(64, 96, 3, 4, 2, 16)
    monkeypatch.setattr(presets, "PRESETS", {"small": small})
    result = bench("--inflate", "small", "--json", "-")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["inflated"]
    assert all(row["identical"] for row in found["results"])
    assert found["results"][2]["tau"] > 1


def test_a_benchmark_of_inflated_heads_goes_on_from_its_log(
    bench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their checkpoints are made anew by each run, and are the same ones."""
    from specdec.bench import presets

    monkeypatch.setattr(presets, "PRESETS", {"small": presets.Shape(64, 96, 3, 4, 2, 16)})
    log = ("--log", tmp_path / "runs.jsonl")
    asked = ("--inflate", "small", "--no-transformers", *log, "--json", "-")
    first = bench(*asked)
    assert first.exit_code == 0, first.stderr
    (written,) = tmp_path.iterdir()
    rounds = written.read_bytes()
    again = bench(*asked)
    assert again.exit_code == 0, again.stderr
    assert written.read_bytes() == rounds
    assert json.loads(again.stdout)["results"] == json.loads(first.stdout)["results"]


def test_help_teaches_with_examples(run: Command) -> None:
    result = run("bench", "--help")
    assert result.exit_code == 0
    assert "Examples" in result.stdout and "specdec bench --inflate" in result.stdout
