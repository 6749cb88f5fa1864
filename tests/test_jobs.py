"""Jobs: ordered, resumable, and a bad row costs nothing but itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import in_a_process
from safetensors.torch import load_file, save_file

from examples import examples
from specdec import Engine, hookimpl
from specdec.errors import OptionError, UnknownNameError
from specdec.files.entry_log import EntryLog
from specdec.files.locks import locked_file
from specdec.jobs import answer_rows, run_job
from specdec.jobs.answer_log import AnswerLog
from specdec.jobs.answering import Answerer, Costs
from specdec.jobs.grouping import neighbours
from specdec.jobs.options import make_job_options
from specdec.jobs.prompt_file import PromptFile
from specdec.jobs.rows import GivenRow, RowReader
from specdec.models.hf_target import HFTarget
from specdec.progress import Reporter, Stage
from specdec.request.generation_fields import ARGUMENTS, Fields

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "HELLO", "max_new_tokens": 9},
    {"id": 2, "prompt": "A", "temperature": 1.0},
    {"prompt": "WORLDWORLD", "temperature": 1.0, "seed": 7},
    {"messages": [{"role": "user", "content": "HI"}], "max_new_tokens": 4},
    {"prompt": [5, 9, 1], "temperature": 1.0},
    {"prompt": "HELLO", "stop": ["A", "B", "C"]},
    {"prompt": "A", "temperature": 1.0, "max_new_tokens": 30},
    {"prompt": "ABCABCABC", "temperature": 0.7, "top_k": 9},
]
OPTIONS: dict[str, Any] = {
    "settings": {"max_new_tokens": 12, "eos_token_id": tiny.EOS},
    "token_ids": True,
    "batch_size": 2,
    "window": 5,
}
LISTED = {name: value for name, value in OPTIONS.items() if name != "window"}  # of a list


def write(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", ROWS)


def test_each_row_has_the_answer_that_it_has_alone(plain: Engine, prompts: Path) -> None:
    out = prompts.with_name("out.jsonl")
    summary = run_job(plain, prompts, out, seed=3, **OPTIONS)
    answers = read(out)
    assert [answer["index"] for answer in answers] == list(range(len(ROWS)))
    assert [answer.get("id") for answer in answers] == [row.get("id") for row in ROWS]
    seeds = [plain.request([[1]] * len(ROWS), seed=3).seeds[place] for place in range(len(ROWS))]
    for row, answer, seed in zip(ROWS, answers, seeds, strict=True):
        own = {name: value for name, value in row.items() if name != "id"}
        prompt = own.pop("messages", None) or own.pop("prompt")
        settings = {**OPTIONS["settings"], "seed": [seed], **own}
        alone: Any = plain.generate(prompt, **settings)
        assert answer["token_ids"] == alone.token_ids and answer["text"] == alone.text
        assert answer["finish_reason"] == alone.finish_reason
        assert answer["new_tokens"] == len(alone.token_ids)
        assert answer["prompt_tokens"] == alone.prompt_tokens
    assert summary.rows == len(ROWS) and not summary.errors and not summary.resumed
    assert summary.new_tokens == sum(answer["new_tokens"] for answer in answers)
    assert sum(summary.endings.values()) == len(ROWS) and summary.tau == 1


def test_a_list_is_answered_as_a_file_is(plain: Engine, prompts: Path) -> None:
    out = prompts.with_name("out.jsonl")
    run_job(plain, prompts, out, seed=3, **OPTIONS)
    assert answer_rows(plain, ROWS, seed=3, **LISTED) == read(out)


def test_a_window_is_for_files(plain: Engine) -> None:
    with pytest.raises(OptionError, match="window is for files"):
        answer_rows(plain, ROWS, window=5)


@examples(3, many=20)
@given(batch_size=st.integers(1, 9), max_batch_tokens=st.sampled_from([1, 60, 50_000]))
def test_batches_change_no_answer(
    plain: Engine, dynamic: Engine, batch_size: int, max_batch_tokens: int
) -> None:
    wanted = answer_rows(plain, ROWS, **LISTED)
    found = answer_rows(
        dynamic, ROWS, **{**LISTED, "batch_size": batch_size}, max_batch_tokens=max_batch_tokens
    )
    assert found == wanted


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{'prompt': 1}", r"line 3: the line is no JSON: Expecting .* at column 2"),
    "no number": ('{"prompt": "A", "temperature": NaN}', "line 3: .* NaN is no number of JSON"),
    "a name twice": ('{"prompt": "A", "prompt": "B"}', "of one object, 'prompt' is there twice"),
    "a role twice": (
        '{"messages": [{"role": "user", "role": "system", "content": "A"}]}',
        "'role' is there twice: give it once",
    ),
    "no object": ("[1, 2]", "a row is an object with a prompt or messages, not list"),
    "no prompt": ({"text": "A"}, "a prompt or messages, one of them: this has text"),
    "two": ({"prompt": "A", "messages": []}, "this has both"),
    "several": ({"prompt": ["A", "B"]}, "a row has one prompt"),
    "empty": ({"prompt": ""}, "the prompt is empty"),
    "messages": ({"messages": "A"}, "messages must be a list of objects with role and content"),
    "role": ({"messages": [{"content": "A"}]}, "has no role"),
    "value": ({"prompt": "A", "temperature": -1}, r"temperature=-1: it must be a number"),
    "misspelt": ({"prompt": "A", "temprature": 1}, "did you mean 'temperature'"),
    "foreign": ({"prompt": "A", "category": 1}, r"unknown field 'category'.*--keep category"),
    "elsewhere": ({"prompt": "A", "stop_token_ids": [1]}, "give eos_token_id"),
    "of a call": ({"prompt": "A", "trace": True}, "trace is no setting of a row"),
    "several texts": ({"prompt": "A", "n": 2}, "n is no setting of a row"),
    "the clock": ({"prompt": "A", "max_time": 9.0}, "max_time is no setting of a row"),
    "how likely": ({"prompt": "A", "logprobs": 0}, "logprobs is no setting of a row"),
    "by a config": (
        {"prompt": "A", "generation_config": {"max_time": 9.0}},
        "max_time is no setting of a row, and the generation config has it",
    ),
    "too long": ({"prompt": "A" * 600}, "the model's context holds"),
    "token": ({"prompt": [999]}, "token id 999"),
    "seed": ({"prompt": "A", "seed": [1, 2]}, "seed has 2 entries"),
    "infinite": ('{"prompt": "A", "temperature": 1e400}', "1e400 is too large a number"),
    "bias": ({"prompt": "A", "sequence_bias": 5}, "sequence_bias=5: it must be a list of pairs"),
    "no pairs": ({"prompt": "A", "sequence_bias": [[5, 2.0]]}, "sequence_bias=.*: it must be"),
    "huge": ({"prompt": "A", "eos_token_id": 99999999999999999999}, "must be a token id"),
    "suppressed": ({"prompt": "A", "suppress_tokens": [10**20]}, "suppress_tokens=.* it must be"),
    "two rows": (
        {"prompt": {"input_ids": [[5], [6]]}, "seed": 7},
        "a row has one prompt, and this has 2",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_gets_an_error_and_the_others_their_answers(
    plain: Engine, tmp_path: Path, kind: str
) -> None:
    bad, message = BAD[kind]
    good = [{"id": "x", "prompt": "HELLO"}, {"prompt": "A"}, {"prompt": "HI"}]
    prompts = write(tmp_path / "in.jsonl", [*good[:2], bad, good[2]])
    summary = run_job(plain, prompts, tmp_path / "out.jsonl", settings={"max_new_tokens": 3})
    answers = read(tmp_path / "out.jsonl")
    assert summary.errors == 1 and summary.rows == 4
    assert [("error" in answer, "text" in answer) for answer in answers] == [
        (place == 2, place != 2) for place in range(4)
    ]
    assert answers[2]["index"] == 2 and answers[2]["error"]["type"].endswith("Error")
    assert re.search(message, answers[2]["error"]["message"])
    assert answers[2]["error"]["message"].startswith("line 3: ")


ODD = st.recursive(
    st.sampled_from([None, True, -1, 0, 5, 10**20, 0.5, "", "A", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "role", "input_ids"]), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = sorted({*ARGUMENTS, *Fields.model_fields, "messages", "use_cache"})


@examples(60, many=2000)
@given(odd=st.dictionaries(st.sampled_from(NAMES), ODD, min_size=1, max_size=2))
@pytest.mark.filterwarnings("ignore")
def test_no_value_of_a_row_stops_the_others(plain: Engine, odd: dict[str, Any]) -> None:
    rows = [{"prompt": "A", **odd}, {"prompt": "HI"}]
    bad, good = answer_rows(plain, rows, settings={"max_new_tokens": 2})
    assert "text" in good and ("text" in bad or bad["error"]["type"].endswith("Error"))


def test_settings_that_json_does_not_have_are_taken(plain: Engine, prompts: Path) -> None:
    out, bias = prompts.with_name("out.jsonl"), {(5,): 2.0, (9, 1): -1.0}
    options = {**OPTIONS, "settings": {**OPTIONS["settings"], "sequence_bias": bias}}
    assert run_job(plain, prompts, out, **options) == run_job(plain, prompts, out, **options)
    assert read(out) == answer_rows(plain, ROWS, **{**LISTED, "settings": options["settings"]})


@pytest.mark.parametrize(
    ("job", "row"),
    [
        ({"max_new_tokens": 10}, {"max_length": 6}),
        ({"max_length": 6}, {"max_new_tokens": 10}),
        ({"max_new_tokens": 10}, {"generation_config": {"max_length": 6}}),
        ({"max_new_tokens": 10}, {"generation_config": {"max_new_tokens": 2}}),
        ({"max_length": 6}, {"generation_config": {"max_new_tokens": 10}}),
        ({"generation_config": {"max_new_tokens": 10}}, {"max_length": 6}),
        ({"do_sample": False}, {"temperature": 1.0}),
        ({"do_sample": True}, {"temperature": 0}),
        ({"temperature": 0}, {"do_sample": True}),
        ({"stop": "L"}, {"stop_strings": "O"}),
        ({"stop_strings": "L"}, {"stop": "O"}),
        ({"temperature": 0}, {"generation_config": {"do_sample": True, "temperature": 2.0}}),
    ],
    ids=str,
)
def test_what_a_row_says_itself_comes_before_the_settings_of_the_job(
    plain: Engine, job: dict[str, Any], row: dict[str, Any]
) -> None:
    own = {"prompt": "HELLO", "seed": 5, **row}
    rest = {"eos_token_id": []}
    (found,) = answer_rows(plain, [own], settings={**rest, **job}, token_ids=True)
    (alone,) = answer_rows(plain, [own], settings=rest, token_ids=True)
    (other,) = answer_rows(plain, [{"prompt": "HELLO", "seed": 5}], settings={**rest, **job})
    assert found["token_ids"] == alone["token_ids"] and found["text"] != other["text"]


def test_what_a_row_leaves_out_is_that_of_the_job(plain: Engine) -> None:
    job = {"max_new_tokens": 9, "temperature": 1.0, "top_k": 9}
    row = {"prompt": "HELLO", "seed": 5}
    for own in ({"max_length": 8}, {"top_k": 3}, {"do_sample": True}, {"min_length": 7}):
        (found,) = answer_rows(plain, [{**row, **own}], settings=job)
        left = {name: job[name] for name in job if "max_length" not in own or name[:3] != "max"}
        (wanted,) = answer_rows(plain, [{**row, **left, **own}])
        assert found == wanted


def test_rows_whose_long_settings_differ_share_no_batch(plain: Engine) -> None:
    sets = [np.array([*range(2000), middle, *range(2000)]) for middle in (5, 4005)]
    rows = [{"prompt": "A", "suppress_tokens": each} for each in sets]
    reader = RowReader(plain.request, make_job_options({}))
    one, other = (reader(GivenRow(place, row, 1)).like for place, row in enumerate(rows))
    assert one != other


def test_what_is_kept_and_is_a_setting_is_one(plain: Engine) -> None:
    rows = [{"prompt": "HELLO", "temperature": 1.0, "max_new_tokens": 3, "note": "x"}]
    bare = [{name: rows[0][name] for name in rows[0] if name != "note"}]
    (kept,) = answer_rows(plain, rows, keep=("temperature", "max_new_tokens", "note"))
    (alone,) = answer_rows(plain, bare)
    assert kept["text"] == alone["text"] and kept["new_tokens"] == 3
    assert kept["temperature"] == 1.0 and kept["note"] == "x"
    (refused,) = answer_rows(plain, [{"prompt": "HELLO", "n": 3}], keep=("n",))
    assert "n is no setting of a row" in refused["error"]["message"]


class Meanwhile(Reporter, Stage):
    """Does something to a file when so many things have been told to it."""

    def __init__(self, after: int, act: Callable[[], Any]) -> None:
        self.after, self.act = after, act

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        yield self

    def advance(self, amount: float, text: str = "") -> None:
        self.after -= 1
        if self.after == 0:
            self.act()

    at = advance


def test_rows_that_are_added_during_a_job_are_told_and_cost_nothing(
    plain: Engine, prompts: Path
) -> None:
    out, wanted = prompts.with_name("out.jsonl"), answer_rows(plain, ROWS, **LISTED)
    prompts.write_bytes(prompts.read_bytes().rstrip())

    def add() -> None:
        with prompts.open("a") as file:
            file.write('\n{"prompt": "A"}' * 9)

    with pytest.raises(OptionError, match=r"was changed while the job ran: .* the 8 rows"):
        run_job(plain, prompts, out, progress=Meanwhile(2, add), **OPTIONS)
    assert read(out) == wanted


def test_rows_that_are_changed_before_their_turn_are_not_answered(prompts: Path) -> None:
    known = PromptFile(prompts, 0, 5)
    write(prompts, [*ROWS[:-1], {"prompt": "HI"}])
    windows = known.windows()
    assert len(next(windows)) == 5
    with pytest.raises(OptionError, match="was changed while the job ran, from row 5 on"):
        next(windows)
    write(prompts, ROWS)
    assert [len(window) for window in known.windows()] == [5, 3] and not known.changed


def test_an_answer_to_no_row_is_not_written(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "log", {}, 2)
    with pytest.raises(IndexError, match="has 2 rows"):
        log.add(0, [{"index": 2}], Costs())
    assert AnswerLog(tmp_path / "log", {}, 2).answered == 0


def test_another_tokenizer_is_another_job(
    model: Any, plain: Engine, tokenizer: Any, prompts: Path
) -> None:
    out = prompts.with_name("out.jsonl")
    run_job(plain, prompts, out, **OPTIONS)
    same, other = tiny.make_tokenizer(), tiny.make_tokenizer()
    same(["A", "HELLO"], padding=True, truncation=True, max_length=3)
    run_job(Engine(model, strategy="plain", tokenizer=same), prompts, out, **OPTIONS)
    other.add_tokens(["HELL"])
    with pytest.raises(OptionError, match="another job: there tokenizer is"):
        run_job(Engine(model, strategy="plain", tokenizer=other), prompts, out, **OPTIONS)


def test_a_model_that_several_processes_hold_is_refused(
    plain: Engine, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded = replace(plain.generation_setup(), ranks=SimpleNamespace(size=2))  # type: ignore[arg-type]
    monkeypatch.setattr(Engine, "generation_setup", lambda self: sharded)
    with pytest.raises(OptionError, match="2 processes that hold this model"):
        run_job(plain, prompts, prompts.with_name("out.jsonl"))


def test_bytes_that_are_no_text_are_a_bad_row_and_blank_lines_are_none(
    plain: Engine, tmp_path: Path
) -> None:
    prompts = tmp_path / "in.jsonl"
    prompts.write_bytes(b'\n{"prompt": "\xff"}\n  \n{"prompt": "HI"}')
    run_job(plain, prompts, tmp_path / "out.jsonl", settings={"max_new_tokens": 3})
    bad, good = read(tmp_path / "out.jsonl")
    assert "line 2: the line is no JSON: it is no UTF-8" in bad["error"]["message"]
    assert good["index"] == 1 and good["new_tokens"] == 3


def test_what_is_kept_comes_back_as_it_was(plain: Engine, tmp_path: Path) -> None:
    kept = {"id": [1, {"x": "\ud800"}], "category": "é\u2028", "weight": 0.1}
    rows = [{"prompt": "HI", **kept}, {"prompt": "", **kept}, {"prompt": "A"}]
    prompts = write(tmp_path / "in.jsonl", rows)
    options = {"keep": ("category", "weight"), "settings": {"max_new_tokens": 2}}
    run_job(plain, prompts, tmp_path / "out.jsonl", **options)
    lines = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    one, two, three = (json.loads(line) for line in lines[:3])
    for answer in (one, two):
        assert {name: answer[name] for name in kept} == kept
    assert "text" in one and "error" in two and "category" not in three and lines[3] == b""


def test_a_row_that_fails_in_decoding_takes_no_other_with_it(
    plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = type(plain.target).prefill

    def small(self: Any, tokens: torch.Tensor, cache: Any) -> Any:
        if tokens.shape[1] > 6:
            raise torch.OutOfMemoryError("no memory for that many")
        return true(self, tokens, cache)

    rows = [{"prompt": "HELLO"}, {"prompt": "HELLOHELLO"}, {"prompt": "A"}]
    wanted = answer_rows(plain, rows, settings={"max_new_tokens": 5})
    monkeypatch.setattr(type(plain.target), "prefill", small)
    with pytest.warns(UserWarning, match="does not fit into memory"):
        found = answer_rows(plain, rows, settings={"max_new_tokens": 5})
    assert found[0] == wanted[0] and found[2] == wanted[2]
    assert "no memory" in found[1]["error"]["message"]


def test_an_error_that_is_no_fault_of_a_row_stops_the_job_and_keeps_what_it_has(
    plain: Engine, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = prompts.with_name("out.jsonl"), []
    true = type(plain.target).prefill

    def broken(self: Any, tokens: torch.Tensor, cache: Any) -> Any:
        calls.append(len(tokens))
        if len(calls) == 3:
            raise RuntimeError("the device is gone")
        return true(self, tokens, cache)

    with monkeypatch.context() as patched:
        patched.setattr(type(plain.target), "prefill", broken)
        with pytest.raises(RuntimeError, match="the device is gone"):
            run_job(plain, prompts, out, **OPTIONS)
    assert not out.exists()
    assert run_job(plain, prompts, out, **OPTIONS).resumed > 0
    assert read(out) == answer_rows(plain, ROWS, **LISTED)


class Killer(Reporter, Stage):
    """Sends its process a signal when so many things have been told to it."""

    def __init__(self, after: int) -> None:
        self.after = after

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        yield self

    def advance(self, amount: float, text: str = "") -> None:
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    at = advance


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")


@forks
def test_killed_again_and_again_it_writes_the_same_bytes(dynamic: Engine, prompts: Path) -> None:
    whole, killed = prompts.with_name("whole.jsonl"), prompts.with_name("killed.jsonl")
    write(prompts, [*ROWS, "no row", *ROWS])
    run_job(dynamic, prompts, whole, **OPTIONS)
    kills = 0
    while in_a_process(
        lambda after=1 + 5 * kills: run_job(
            dynamic, prompts, killed, progress=Killer(after), **OPTIONS
        )
    ):
        kills += 1
        assert not killed.exists()
    assert kills > 3
    assert killed.read_bytes() == whole.read_bytes()
    left = {path.name for path in prompts.parent.iterdir()}
    assert left == {f"{p.name}{end}" for p in (whole, killed) for end in ("", ".job")} | {
        prompts.name
    }


@forks
@examples(2, many=20)
@given(seconds=st.lists(st.floats(0.01, 0.6), min_size=2, max_size=4))
def test_killed_at_any_time_it_writes_the_same_bytes(
    plain: Engine, tmp_path_factory: pytest.TempPathFactory, seconds: list[float]
) -> None:
    prompts = write(tmp_path_factory.mktemp("job") / "in.jsonl", ROWS * 2)
    whole, killed = prompts.with_name("whole.jsonl"), prompts.with_name("killed.jsonl")
    run_job(plain, prompts, whole, **OPTIONS)
    for each in seconds:
        in_a_process(lambda: run_job(plain, prompts, killed, **OPTIONS), each)
    run_job(plain, prompts, killed, **OPTIONS)
    assert killed.read_bytes() == whole.read_bytes()


@forks
@pytest.mark.parametrize("name", ["replace", "add"])
def test_killed_before_or_after_its_file_is_written_it_is_whole(
    plain: Engine, prompts: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: when the last entry is on disk. After: when the log is to be emptied."""
    out, wanted = prompts.with_name("out.jsonl"), answer_rows(plain, ROWS, **LISTED)
    true, calls = getattr(EntryLog, name), []
    last = {"replace": 1, "add": 6}[name]

    def kill(self: EntryLog, entries: Any) -> Any:
        calls.append(entries)
        done = true(self, entries) if name == "add" else None
        if len(calls) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(EntryLog, name, kill)
        assert in_a_process(lambda: run_job(plain, prompts, out, **OPTIONS)) == -signal.SIGKILL
    assert out.exists() == (name == "replace")
    assert run_job(plain, prompts, out, **OPTIONS).resumed == len(ROWS)
    assert read(out) == wanted


@forks
def test_cut_off_anywhere_the_log_loses_no_whole_answer_and_doubles_none(
    plain: Engine, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, log = prompts.with_name("out.jsonl"), prompts.with_name("out.jsonl.job")
    with monkeypatch.context() as patched:
        patched.setattr(EntryLog, "replace", lambda *given: os.kill(os.getpid(), signal.SIGKILL))
        in_a_process(lambda: run_job(plain, prompts, out, **OPTIONS))
    wanted, lines = out.read_bytes(), log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 7
    for whole in range(len(lines)):
        for cut in (b"", lines[whole][:-1], lines[whole][: len(lines[whole]) // 2]):
            out.unlink()
            log.write_bytes(b"".join([*lines[:whole], cut]))
            half = log.with_name(f".{out.name}.123")
            half.write_text("half")
            summary = run_job(plain, prompts, out, **OPTIONS)
            kept = [json.loads(line) for line in lines[1:whole]]
            assert summary.resumed == sum(len(entry["answers"]) for entry in kept)
            assert out.read_bytes() == wanted and not half.exists()
            assert summary.rows == len(ROWS) == sum(summary.endings.values())


def test_after_its_end_it_does_nothing_and_without_its_file_it_begins_anew(
    plain: Engine, prompts: Path
) -> None:
    out = prompts.with_name("out.jsonl")
    first = run_job(plain, prompts, out, **OPTIONS)
    written, when = out.read_bytes(), out.stat().st_mtime_ns
    assert run_job(plain, prompts, out, **OPTIONS) == first
    assert out.stat().st_mtime_ns == when
    out.unlink()
    again = run_job(plain, prompts, out, **OPTIONS)
    assert again.resumed == 0 and out.read_bytes() == written


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, ["there seed is 0, here 1"]),
        (
            {"settings": {"max_new_tokens": 3, "top_k": 5}},
            ["settings.max_new_tokens is 12, here 3", "settings.top_k is None, here 5"],
        ),
        ({"batch_size": 3, "window": 9}, ["batch_size is 2, here 3", "window is 5, here 9"]),
        ({"token_ids": False}, ["there token_ids is True"]),
        ({"chat": True}, ["there chat is False"]),
        ({"keep": ("note",)}, ["there keep is"]),
        ({"rows": ROWS[:-1]}, ["there rows is 8, here 7"]),
        ({"rows": [*ROWS[:-1], ROWS[0]]}, ["there prompts is"]),
        ({"strategy": "lookup"}, ["there strategy is 'plain', here 'lookup'"]),
    ],
    ids=str,
)
def test_another_job_is_not_gone_on_with_and_all_that_differs_is_named(
    plain: Engine, prompts: Path, changed: dict[str, Any], named: list[str]
) -> None:
    out, options = prompts.with_name("out.jsonl"), {**OPTIONS, **changed}
    run_job(plain, prompts, out, **OPTIONS)
    write(prompts, options.pop("rows", ROWS))
    engine = plain.with_strategy(options.pop("strategy", "plain"))
    with pytest.raises(OptionError, match="another job: there") as error:
        run_job(engine, prompts, out, **options)
    told = str(error.value)
    assert all(each in told for each in named) and "remove" not in told
    assert told.endswith("Give what was given there to go on with it, or another file")


class Wrapped(HFTarget):
    """A target that a plugin puts in the place of the engine's own."""


class Wrapper:
    @hookimpl
    def specdec_wrap_target(self, target: HFTarget) -> HFTarget:
        return Wrapped(target.model, acceleration=target.acceleration)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"pack": True}, "there pack is False, here True"),
        ({"compile": True}, "there compile is False, here True"),
        ({"plugins": [Wrapper()]}, "there target is 'HFTarget', here 'Wrapped'"),
        ({"dtype": "bfloat16"}, "there dtype is 'float32', here 'bfloat16'"),
    ],
    ids=["pack", "compile", "a wrapped target", "dtype"],
)
def test_a_job_is_not_gone_on_with_in_other_arithmetic(
    model: Any, tokenizer: Any, prompts: Path, changed: dict[str, Any], named: str
) -> None:
    out = prompts.with_name("out.jsonl")
    usual: dict[str, Any] = {"strategy": "plain", "tokenizer": tokenizer, "dtype": "float32"}
    run_job(Engine(model, **usual), prompts, out, **OPTIONS)
    with pytest.raises(OptionError, match=named):
        run_job(Engine(model, **{**usual, **changed}), prompts, out, **OPTIONS)


def test_a_job_is_not_gone_on_with_on_a_device_of_another_type(
    plain: Engine, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = prompts.with_name("out.jsonl")
    run_job(plain, prompts, out, **OPTIONS)
    monkeypatch.setattr(HFTarget, "device", property(lambda self: torch.device("cuda:0")))
    with pytest.raises(OptionError, match="there device is 'cpu', here 'cuda'"):
        run_job(plain, prompts, out, **OPTIONS)


def weather(summary: str) -> Callable[..., Any]:
    """A tool, made anew."""

    def get_weather(city: str) -> str:
        return city

    get_weather.__doc__ = f"{summary}\n\nArgs:\n    city: Where."
    return get_weather


@pytest.mark.filterwarnings("ignore:the chat template does not use tools")
def test_a_function_among_the_tools_is_the_same_where_its_schema_is(
    plain: Engine, prompts: Path
) -> None:
    out, chat = prompts.with_name("out.jsonl"), write(prompts, ROWS[3:4])
    tools = [weather("Tells the weather."), weather("Tells the weather."), weather("Forgets it.")]
    done = [run_job(plain, chat, out, settings={"tools": [tool]}) for tool in tools[:2]]
    assert done[0] == done[1]
    with pytest.raises(OptionError, match=r"settings\.tools is .*weather"):
        run_job(plain, chat, out, settings={"tools": tools[2:]})


def test_a_checkpoint_that_lies_elsewhere_is_the_same(
    plain: Engine, draft: Path, prompts: Path
) -> None:
    out = prompts.with_name("out.jsonl")
    folders = [shutil.copytree(draft, prompts.with_name(name)) for name in ("one", "other")]
    engines = [plain.with_strategy("draft_model", drafter=folder) for folder in folders]
    done = [run_job(engine, prompts, out, **OPTIONS) for engine in engines]
    assert done[0] == done[1]
    (folders[0] / "more.json").write_text("{}")
    with pytest.raises(OptionError, match=r"another job: there part options\.drafter is"):
        run_job(engines[0], prompts, out, **OPTIONS)


def test_a_checkpoint_that_was_trained_on_is_another_one_though_its_files_are_as_large(
    plain: Engine, draft: Path, prompts: Path
) -> None:
    out, folder = prompts.with_name("out.jsonl"), shutil.copytree(draft, prompts.with_name("one"))
    run_job(plain.with_strategy("draft_model", drafter=folder), prompts, out, **OPTIONS)
    weights = folder / "model.safetensors"
    sizes = weights.stat().st_size
    values = load_file(weights)
    save_file({name: value + 1 for name, value in values.items()}, weights, {"format": "pt"})
    assert weights.stat().st_size == sizes
    with pytest.raises(OptionError, match=r"another job: there part options\.drafter is"):
        run_job(plain.with_strategy("draft_model", drafter=folder), prompts, out, **OPTIONS)


def test_a_file_that_no_job_has_written_is_not_written_over(plain: Engine, prompts: Path) -> None:
    out = write(prompts.with_name("out.jsonl"), ["dear to somebody"])
    with pytest.raises(OptionError, match="is there, and not from a job: give another file"):
        run_job(plain, prompts, out)
    with pytest.raises(OptionError, match="is the file of prompts"):
        run_job(plain, prompts, prompts)
    log = write(prompts.with_name("new.jsonl.job"), ["something else"])
    with pytest.raises(OptionError, match="holds no answers of a job"):
        run_job(plain, prompts, prompts.with_name("new.jsonl"))
    assert read_text(out) == "dear to somebody\n" and read_text(log) == "something else\n"


def read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_one_process_writes_a_job_at_a_time(plain: Engine, prompts: Path) -> None:
    out = prompts.with_name("out.jsonl")
    with (
        locked_file(prompts.with_name("out.jsonl.job")),
        pytest.raises(OptionError, match=r"another run is writing .*out\.jsonl\.job"),
    ):
        run_job(plain, prompts, out)
    run_job(plain, prompts, out, **OPTIONS)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: .*greater than or equal to 1"),
        ({"keep": ("text",)}, "an answer has a field 'text' of its own"),
        ({"settings": {"temperature": -1}}, "temperature=-1: it must be"),
        ({"settings": {"seed": 3}}, "seed cannot be among the settings of all rows"),
        ({"settings": {"prompt": "A"}}, "prompt cannot be among"),
    ],
    ids=str,
)
def test_options_that_are_not_allowed_are_refused_before_any_row(
    plain: Engine, prompts: Path, given_: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        run_job(plain, prompts, prompts.with_name("out.jsonl"), **given_)
    assert not prompts.with_name("out.jsonl.job").exists()


def test_an_option_that_does_not_exist_and_a_file_that_is_not_there_are_named(
    plain: Engine, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'batch_size'"):
        run_job(plain, tmp_path / "in.jsonl", tmp_path / "out.jsonl", batchsize=3)
    with pytest.raises(OptionError, match=r"there is no file .*in\.jsonl"):
        run_job(plain, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(OptionError, match=r"in\.jsonl has no rows"):
        run_job(plain, write(tmp_path / "in.jsonl", ["", " "]), tmp_path / "out.jsonl")


@pytest.mark.parametrize("engine", ["chat-7m", None, Path("chat-7m"), Engine], ids=str)
def test_only_an_engine_answers(engine: Any, prompts: Path) -> None:
    for answer in (
        lambda: run_job(engine, prompts, prompts.with_name("out.jsonl")),
        lambda: answer_rows(engine, ROWS),
    ):
        with pytest.raises(OptionError, match=r"engine must be a specdec\.Engine, not .*Engine\("):
            answer()


@pytest.mark.parametrize("rows", [None, 5, "HELLO", b"HELLO", {"prompt": "HELLO"}], ids=str)
def test_rows_that_are_no_list_of_objects_are_refused(plain: Engine, rows: Any) -> None:
    with pytest.raises(OptionError, match="rows must be a list of objects"):
        answer_rows(plain, rows)
    assert answer_rows(plain, iter(ROWS[:1]), **LISTED) == answer_rows(plain, ROWS[:1], **LISTED)


@pytest.mark.parametrize("name", ["prompts", "out"])
def test_what_names_no_file_is_refused(plain: Engine, prompts: Path, name: str) -> None:
    for value in (None, 3, ROWS):
        files = {"prompts": prompts, "out": prompts.with_name("out.jsonl"), name: value}
        with pytest.raises(OptionError, match=f"{name} must be the name of a file, not"):
            run_job(plain, **files)


@pytest.mark.parametrize("out", ["/", ".", "..", ""])
def test_a_folder_is_no_file_to_write_to(plain: Engine, prompts: Path, out: str) -> None:
    with pytest.raises(OptionError, match="is a folder: give the file to write to"):
        run_job(plain, prompts, out)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("document", "says"), [(ROWS, r"is one JSON array: .*jq -c '\.\[\]' "), (ROWS[0], "object")]
)
def test_a_json_document_is_told_from_lines(
    plain: Engine, tmp_path: Path, document: Any, says: str, indent: int | None
) -> None:
    prompts, out = tmp_path / "in.json", tmp_path / "out.jsonl"
    prompts.write_text("\n" + json.dumps(document, indent=indent))
    if indent is None and isinstance(document, dict):
        assert run_job(plain, prompts, out, **OPTIONS).errors == 0
        return
    with pytest.raises(OptionError, match=says):
        run_job(plain, prompts, out, **OPTIONS)
    assert list(tmp_path.iterdir()) == [prompts]


def test_a_bad_first_line_is_a_bad_row_alone(plain: Engine, tmp_path: Path) -> None:
    for number, first in enumerate(("[1, 2]", "[{", '{"prompt": "A"} x', "[]")):
        prompts = write(tmp_path / "in.jsonl", [first, {"prompt": "A"}])
        done = run_job(plain, prompts, tmp_path / f"out-{number}.jsonl", **OPTIONS)
        assert (done.rows, done.errors) == (2, 1)


def test_the_bar_ends_with_all_rows_and_is_told_of_errors(plain: Engine, tmp_path: Path) -> None:
    class Told(Reporter, Stage):
        rows, text, total, notes = 0.0, "", 0.0, ""

        @contextmanager
        def stage(self, name: str, total: float) -> Iterator[Stage]:
            self.total = total
            yield self

        def note(self, text: str) -> None:
            self.notes += text

        def advance(self, amount: float, text: str = "") -> None:
            self.rows, self.text = self.rows + amount, text
            assert self.rows <= self.total

        def at(self, amount: float, text: str = "") -> None:
            self.rows, self.text = amount, text

    prompts = write(tmp_path / "in.jsonl", [*ROWS, "no row"])
    told = Told()
    run_job(plain, prompts, tmp_path / "out.jsonl", progress=told, **OPTIONS)
    assert told.rows == told.total == len(ROWS) + 1
    assert "tokens/s" in told.text and "1 error" in told.text and told.notes == ""


@examples(20, many=300)
@given(
    lengths=st.lists(st.integers(1, 40), max_size=30),
    most=st.integers(1, 8),
    max_batch_tokens=st.integers(1, 200),
)
def test_groups_are_neighbours_within_the_bounds_and_as_large_as_they_can_be(
    lengths: list[int], most: int, max_batch_tokens: int
) -> None:
    groups = list(
        neighbours(lengths, lambda length: length, most=most, max_batch_tokens=max_batch_tokens)
    )
    assert [length for group in groups for length in group] == lengths
    for group, following in zip_longest(groups, groups[1:]):
        assert 1 <= len(group) <= most
        assert len(group) == 1 or len(group) * max(group) <= max_batch_tokens
        if following:
            larger = [*group, following[0]]
            assert len(larger) > most or len(larger) * max(larger) > max_batch_tokens


def test_a_log_of_entries_gives_them_back_by_place(tmp_path: Path) -> None:
    log = EntryLog(tmp_path / "log", {"of": "x" * 100_000}, kind="test", holds="things")
    places = [log.add({"n": n, "text": "é\n" * n}) for n in range(4)]
    again = EntryLog(tmp_path / "log", {"of": "x" * 100_000}, kind="test", holds="things")
    assert [place for place, _ in again.entries()] == places
    assert [entry["n"] for entry in again.read(places[::-1])] == [3, 2, 1, 0]
    again.replace([{"n": 9}])
    assert [entry for _, entry in again.entries()] == [{"n": 9}]
    again.clear()
    assert not list(again.entries()) and again.add(1) == places[0]


def test_what_a_log_is_about_is_known_again_or_refused(tmp_path: Path) -> None:
    class Thing:
        """Says nothing of itself."""

    for made in (lambda: weather(""), lambda: [Path("a"), torch.float16]):
        EntryLog(tmp_path / "known", {"of": made()}, kind="test", holds="things")
        EntryLog(tmp_path / "known", {"of": made()}, kind="test", holds="things")
        (tmp_path / "known").unlink()
    with pytest.raises(OptionError, match="a Thing says of itself where it lies in memory"):
        EntryLog(tmp_path / "log", {"of": {"a": [Thing()]}}, kind="test", holds="things")
    assert not (tmp_path / "log").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(OptionError, match="/dev/full cannot be written: No space left"):
        EntryLog(Path("/dev/full"), {}, kind="test", holds="things")


@pytest.mark.filterwarnings("ignore:a batch of")
def test_a_row_that_ends_again_after_lack_of_memory_is_counted_once(
    plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, told, failed = type(plain.target).forward, list[int](), list[int]()

    def small(self: Any, tokens: torch.Tensor, *given: Any) -> Any:
        if len(failed) < 2 and sum(told):  # the batch, then the first half of it
            failed.append(len(tokens))
            raise torch.OutOfMemoryError("no memory for that many")
        return true(self, tokens, *given)

    monkeypatch.setattr(type(plain.target), "forward", small)
    rows = [{"prompt": "HELLO", "max_new_tokens": 1 + 6 * row} for row in range(3)]
    answerer = Answerer(plain, make_job_options({}))
    given = [GivenRow(index, fields, index) for index, fields in enumerate(rows)]
    for batch in answerer.batches(given):
        answerer.answer(batch, told.append)
    assert failed[1:] == [1] and sum(told) == len(rows)
