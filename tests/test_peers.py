"""Peers: decoders in processes of their own as contenders, and which of them can run."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pages
import pytest
import tiny
from safetensors import safe_open
from transformers import GenerationConfig

from specdec import Engine, bench
from specdec.bench import peers
from specdec.bench.machine import commit_of
from specdec.bench.peers import workers
from specdec.bench.peers.contender import PeerContender
from specdec.bench.peers.heads import head_of, trees_of
from specdec.bench.peers.protocol import PeerError, Process
from specdec.errors import OptionError, SpecdecError

WORKER = """
import os, sys
sys.path.insert(0, {folder!r})
from protocol import Decoded, serve

class Fixed:
    facts = {{"version": "1", "pid": os.getpid()}}
    facts["weights only"] = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    def __init__(self, job):
        self.job = job
        if job.get("broken"):
            raise ValueError("no such model")
    def decode(self, mode, prompt, max_new_tokens, temperature, seed):
        if prompt[0] == self.job.get("fails_at"):
            raise ValueError("out of memory")
        return Decoded([7] * max_new_tokens, 0.5, 2)

serve(Fixed)
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., PeerContender]]:
    """Starts a worker that always writes 7, in half a second and two steps."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(folder=str(Path(peers.__file__).parent)), encoding="utf-8")
    with ExitStack() as stack:

        def start(**job: Any) -> PeerContender:
            process = Process(sys.executable, script, 1, tmp_path / "log")
            stack.callback(process.close)
            return PeerContender("fixed", process, {"versions": process.load(job)})

        yield start


def test_a_peer_is_measured_by_its_own_clock_and_its_own_count(
    started: Callable[..., PeerContender], plain: Engine
) -> None:
    asked = bench.Settings(max_new_tokens=6, repetitions=2)
    prompts = [bench.Prompt("tiny", i, (5, 9, i)) for i in range(3)]
    report = bench.run({"plain": plain}, prompts, asked, transformers=False, peers=[started()])
    found = report.of("fixed")
    assert (found.tau, found.tokens_per_second) == (3.0, 12.0)
    assert found.draft_forwards is None
    assert found.seconds == {"total": 1.5}
    assert found.identical is False and found.peak_memory == 0
    assert found.facts["versions"]["version"] == "1"


def test_a_peer_of_one_row_is_left_out_of_larger_batches(
    started: Callable[..., PeerContender], plain: Engine
) -> None:
    peer, prompts = started(), [bench.Prompt("tiny", i, (5, 9, i)) for i in range(2)]
    asked = bench.Settings(max_new_tokens=4, repetitions=1)
    given: dict[str, Any] = {"transformers": False, "peers": [peer]}
    seen: list[tuple[int, int]] = []
    reports = bench.run_at(
        [0.0],
        {"plain": plain},
        prompts,
        asked,
        batch_sizes=[1, 2],
        progress=lambda done, total, what: seen.append((done, total)),
        **given,
    )
    labels = [[result.strategy for result in report.results] for report in reports]
    assert labels == [["plain", "fixed"], ["plain"]]
    assert all(done <= total for done, total in seen) and seen[-1][0] == seen[-1][1]
    refused = "fixed does not decode 2 rows together"
    with pytest.raises(OptionError, match=refused):
        bench.run({"plain": plain}, prompts, replace(asked, batch_size=2), **given)
    with pytest.raises(OptionError, match=refused):
        bench.run_at([0.0], {"plain": plain}, prompts, asked, batch_sizes=[2, 4], **given)


def test_a_peer_that_fails_ends_the_run_with_its_reason(
    started: Callable[..., PeerContender], plain: Engine
) -> None:
    prompts = [bench.Prompt("tiny", 0, (5, 9, 1))]
    asked = bench.Settings(max_new_tokens=4, repetitions=1)
    peer = started(fails_at=5)
    with pytest.raises(SpecdecError, match="the peer 'fixed' failed: ValueError: out of memory"):
        bench.run({"plain": plain}, prompts, asked, transformers=False, peers=[peer])


def kill(peer: PeerContender) -> None:
    """End its process, and wait until it has ended."""
    pid = peer.facts()["versions"]["pid"]
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_worker_that_died_between_its_turns_is_told_when_it_is_closed_too(
    started: Callable[..., PeerContender],
) -> None:
    peer = started()
    with pytest.raises(PeerError, match="the worker ended"), closing(peer.process):
        kill(peer)
        peer.process.decode("fixed", [1], 2)


def test_what_was_finished_before_a_peer_failed_is_reported(
    started: Callable[..., PeerContender], plain: Engine, tmp_path: Path
) -> None:
    prompts = [bench.Prompt("tiny", i, (first, 9, 1)) for i, first in enumerate((3, 4, 5))]
    asked = bench.Settings(max_new_tokens=4, repetitions=1)
    peer = started(fails_at=5)
    report = bench.run({"plain": plain}, prompts, asked, transformers=False, peers=[peer])
    assert report.interrupted and "out of memory" in str(report.failure)
    assert report.of("fixed").prompts == report.of("plain").prompts == 2

    given: dict[str, Any] = {"transformers": False, "progress": lambda *_: None}
    engines, whole = {"plain": plain}, started()
    (first, *_) = bench.run_at([0.0, 1.0], engines, prompts, asked, peers=[whole], **given)
    assert not first.interrupted

    def killed(done: int, total: int, what: str) -> None:
        if done == total // 2:  # the first temperature is over
            kill(whole)

    given["progress"] = killed
    reports = bench.run_at([0.0, 1.0], engines, prompts, asked, peers=[whole], **given)
    assert len(reports) == 1 and "the worker ended" in str(reports[0].failure)


def test_pickles_are_read_as_weights_alone(started: Callable[..., PeerContender]) -> None:
    assert started().facts()["versions"]["weights only"] == "1"


def test_a_worker_that_cannot_start_says_why(started: Callable[..., PeerContender]) -> None:
    with pytest.raises(PeerError, match="no such model"):
        started(broken=True)


Heads = Callable[[str], dict[str, Engine]]


@pytest.fixture
def heads(plain: Engine, head: Path, head3: Path, tmp_path: Path) -> Heads:
    """Engines by what is odd about their heads."""

    def make(which: str) -> dict[str, Engine]:
        own = tiny.engine(plain, "eagle2", head)
        if which == "EAGLE-3":
            return {"eagle2": own, "eagle2:3": plain.with_strategy("eagle2", drafter=head3)}
        if which == "two":
            other = shutil.copytree(head, tmp_path / "other")
            return {"eagle2": own, "chain": plain.with_strategy("chain", drafter=other)}
        changes = {"vocabulary": 9, "dtype": "bfloat16"}
        options = {"drafter": changes} if which == "changed" else {"drafter": {"dtype": "float64"}}
        return {"eagle2": plain.with_strategy("eagle2", drafter=head, options=options)}

    return make


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("EAGLE-3", "run EAGLE-1/2 heads, and eagle2:3 drafts with one of EAGLE-3"),
        ("two", "one head, and eagle2 and chain draft with different ones"),
        ("changed", "vocabulary=9: add -o drafter.dtype=auto -o drafter.vocabulary=null, with"),
    ],
)
def test_what_would_be_another_drafter_in_a_peer_is_refused(
    heads: Heads, tmp_path: Path, which: str, message: str
) -> None:
    given = {"vllm.python": sys.executable}
    with (
        pytest.raises(OptionError, match=message),
        workers.start_peers(given, heads(which), tmp_path, context=9, sampled=False),
    ):
        pass


def test_strategies_without_a_counterpart_do_not_matter(
    heads: Heads, plain: Engine, head: Path, head3: Path
) -> None:
    others = {
        "auto": plain.with_strategy("auto", drafter=head3),
        "static_tree": plain.with_strategy(
            "static_tree", drafter=head, options={"drafter": {"vocabulary": 9}}
        ),
    }
    assert head_of(others) is None and trees_of(others) == {}
    both = {**others, **heads("as it is")}
    assert head_of(both) == str(head.resolve()) and list(trees_of(both)) == ["eagle2"]


def test_the_official_code_is_given_no_head_that_it_would_read_in_part(
    head: Path, head3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(peers.__file__).parent)
    check = importlib.import_module("worker_eagle").check_loaded
    with safe_open(head / "model.safetensors", "pt") as weights:
        own = {*weights.keys(), "embed_tokens.weight"}
    check(head, own)
    for other, names in ((head3, own), (head, own - {"fc.bias"}), (head, {*own, "fc2.weight"})):
        with pytest.raises(ValueError, match="is no head for this code"):
            check(other, names)


def test_vllm_is_given_what_the_page_on_serving_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(peers.__file__).parent)
    given: list[dict[str, Any]] = []
    vllm = ModuleType("vllm")
    vars(vllm).update(LLM=lambda target, **settings: given.append(settings), __version__="0")
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    flag = "--speculative-config"
    words = [each.words for each in pages.commands("vllm") if flag in each.words]
    shown = [json.loads(each[each.index(flag) + 1]) for each in words]
    assert [config["method"] for config in shown] == ["eagle", "eagle3"]
    for config in shown:
        mode = {"head": config["model"], "depth": config["num_speculative_tokens"]}
        modes = {"served": {**mode, "method": config["method"]}}
        job = {"target": "x", "dtype": "float32", "threads": 1, "context": 9, "eos": []}
        with patch.dict(os.environ):  # the worker sets variables
            importlib.import_module("worker_vllm").Served({**job, "modes": modes})
        assert given.pop()["speculative_config"] == config


def test_facts_name_what_is_checked_out_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert commit_of(tmp_path, "--abbrev=40") is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = str(commit_of(tmp_path, "--abbrev=40"))
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path, "--abbrev=40") == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("sampled", "message"),
    [
        (True, "also sets repetition_penalty, top_p, top_h:"),
        (False, "also sets repetition_penalty:"),
    ],
)
def test_a_model_whose_config_changes_the_distribution_has_no_peers(
    model: Any, tmp_path: Path, sampled: bool, message: str
) -> None:
    changed = copy.deepcopy(model)
    changed.generation_config = GenerationConfig(top_p=0.9, top_h=0.4, repetition_penalty=1.2)
    other = Engine(changed, strategy="plain")
    given = {"vllm.python": sys.executable}
    with (
        pytest.raises(OptionError, match=message),
        workers.start_peers(given, {"plain": other}, tmp_path, context=9, sampled=sampled),
    ):
        pass


def test_what_an_environment_lacks_is_said(plain: Engine, tmp_path: Path) -> None:
    given = {"vllm.python": sys.executable}
    with (
        pytest.raises(OptionError, match=r"vLLM cannot start with .*No module named 'vllm'"),
        workers.start_peers(given, {"plain": plain}, tmp_path, context=9, sampled=True),
    ):
        pass
