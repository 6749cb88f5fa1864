"""A run that is killed, wherever it is, ends with the weights of an undisturbed one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_a_process
from safetensors.torch import load_file

from specdec import SpecdecError
from specdec.files.atomic_files import replace_folder, write_atomically
from specdec.files.locks import locked
from specdec.progress import Reporter, Stage
from specdec.training.evaluation import TauMeter

Train = Callable[..., Any]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")

ANSWERS = {"temperatures": (0, 1), "new_tokens": 12, "most": 30, "batch": 5}
# Each step is checkpointed, so that what is resumed is in the middle of an epoch.
EVERY = {"save_every": 1e-9, "regenerate": ANSWERS, "options": {"recipe": "eagle1"}}


class Killer(Reporter):
    """Sends its process a signal at some time within a stage."""

    def __init__(self, name: str, after: int, number: int) -> None:
        self.name, self.after, self.number = name, after, number

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        yield Counting(self) if name == self.name else Stage()

    def told(self) -> None:
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), self.number)


class Counting(Stage):
    def __init__(self, killer: Killer) -> None:
        self.killer = killer

    def advance(self, amount: float, text: str = "") -> None:
        self.killer.told()

    def at(self, amount: float, text: str = "") -> None:
        self.killer.told()

    def skip_to(self, amount: float, text: str = "") -> None:
        """No work of this run."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_killed_in_every_stage_it_ends_with_the_same_weights(
    trained: Train, tmp_path: Path
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    whole = trained(out=undisturbed, **EVERY)
    for stage, after in (
        ("answers", 1),
        ("answers", 2),
        ("hidden states", 1),
        ("training", 3),
        ("training", 5),
    ):
        killer = Killer(stage, after, signal.SIGKILL)
        status = in_a_process(lambda killer=killer: trained(out=killed, progress=killer, **EVERY))
        assert status == -signal.SIGKILL, (stage, after)
        assert not killed.exists()
    rest = trained(out=killed, **EVERY)
    assert rest.steps == whole.steps and rest.tokens == whole.tokens
    assert rest.agreement == whole.agreement
    own, wanted = weights(killed), weights(undisturbed)
    assert own.keys() == wanted.keys()
    assert all(torch.equal(own[name], wanted[name]) for name in wanted)


def test_other_seeds_end_with_other_weights(trained: Train, tmp_path: Path) -> None:
    for seed in (0, 1):
        trained(out=tmp_path / str(seed), seed=seed, steps=2)
    one, other = weights(tmp_path / "0"), weights(tmp_path / "1")
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_ctrl_c_ends_after_the_step_and_the_same_call_goes_on(
    trained: Train, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    trained(out=whole)
    first = trained(out=stopped, progress=Killer("training", 5, signal.SIGINT))
    assert (first.ended == "interrupted" and first.steps == 5) or first.steps == 6
    assert not stopped.exists()
    second = trained(out=stopped)
    assert second.ended == "finished" and second.steps == 12
    own, wanted = weights(stopped), weights(whole)
    assert all(torch.equal(own[name], wanted[name]) for name in wanted)


def test_ctrl_c_before_training_stops_at_once(trained: Train) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(progress=Killer("hidden states", 1, signal.SIGINT))
    assert trained().ended == "finished"


def test_a_checkpoint_that_is_broken_is_named(trained: Train, tmp_path: Path) -> None:
    trained()
    (checkpoint,) = (tmp_path / "head.work").glob("run-*/checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(SpecdecError, match=r"checkpoint\.pt cannot be resumed from.*to begin anew"):
        trained()


def test_kept_files_that_are_broken_are_named(trained: Train, tmp_path: Path) -> None:
    trained(steps=1)
    work = tmp_path / "head.work"
    shutil.rmtree(next(work.glob("run-*")))
    shard = next(work.glob("features-*/*.last.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-64])
    with pytest.raises(SpecdecError, match=r"last\.safetensors cannot be read .*: remove it"):
        trained(steps=1)
    shard.unlink()
    trained(steps=1)
    next(work.glob("features-*/manifest.json")).write_text("")
    with pytest.raises(SpecdecError, match=r"manifest\.json cannot be read .*to begin anew"):
        trained(steps=1)


def test_one_run_writes_a_folder_at_a_time_and_removes_what_killed_ones_left(
    trained: Train, tmp_path: Path
) -> None:
    trained(steps=1)
    (folder,) = (tmp_path / "head.work").glob("run-*")
    (folder / ".best-1-abc").mkdir()
    (folder / ".checkpoint.pt.123").touch()
    with (
        locked(folder),
        pytest.raises(SpecdecError, match=r"another run is writing .*run-.*--work"),
    ):
        trained(steps=1)
    trained(steps=1)
    assert sorted(path.name for path in folder.glob(".*")) == [".lock"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def full(fresh: Path) -> None:
        fresh.write_bytes(b"")
        os.remove(fresh)
        torch.save(torch.ones(3), tmp_path / "nowhere" / "file.pt")

    for write in (write_atomically, replace_folder):
        with pytest.raises(SpecdecError, match="kept cannot be written"):
            write(
                tmp_path / "kept", full if write is write_atomically else lambda it: full(it / "a")
            )


def test_accumulated_batches_are_resumed_whole(trained: Train, tmp_path: Path) -> None:
    settings = {"accumulate": 3, "steps": 5, "save_every": 1e-9}
    trained(out=tmp_path / "whole", **settings)
    killer = Killer("training", 2, signal.SIGKILL)
    own = {"out": tmp_path / "killed", **settings}
    assert in_a_process(lambda: trained(progress=killer, **own)) == -signal.SIGKILL
    trained(**own)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_killed_while_tau_is_measured_the_best_network_is_that_of_the_checkpoint(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "head"
    given: dict[str, Any] = {"out": out, "tau_every": 1, "evaluations": 6, "patience": 0}
    given["options"] = {"recipe": "unrolled"}  # its tensors have one name in both files

    def kill(meter: TauMeter, network: Any) -> float:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0.0

    with monkeypatch.context() as patched:
        patched.setattr(TauMeter, "measure", kill)
        assert in_a_process(lambda: trained(**given)) == -signal.SIGKILL
    (folder,) = (tmp_path / "head.work").glob("run-*")
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    (best,) = folder.glob("best-*")
    assert best.name == f"best-{kept['progress']['best_step']}"
    for name, weight in weights(best).items():
        assert torch.equal(weight, kept["network"][name].bfloat16()), name
    assert trained(**given).ended == "finished"
    for each in folder.glob("best-*"):
        shutil.rmtree(each)
    with pytest.raises(SpecdecError, match=r"best-\d+ is gone: remove"):
        trained(**given)
