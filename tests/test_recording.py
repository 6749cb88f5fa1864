"""Recordings: replays follow their inputs, and the tape refuses what a capture would refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from specdec.acceleration.cuda import CudaRecorder
from specdec.acceleration.recording import MOST, Recorded
from specdec.testing.tape import DanglingRead, HostRead, TapeRecorder


class Box:
    derived = ("doubled",)

    def __init__(self, value: float) -> None:
        self.value = torch.tensor([value])
        self.doubled: Tensor | None = None
        self.list: list[Tensor] = []

    def twice(self) -> Tensor:
        if self.doubled is None:
            self.doubled = self.value * 2
        return self.doubled


def run(phase: Recorded, box: Box, key: Any = 0) -> list[float]:
    def function(x: Tensor) -> Tensor:
        box.list.append(x)
        return box.twice() + x

    given = torch.ones(1)
    found, _ = phase.run(key, function, [given], [(box, "value")], ())
    return found.tolist()


def test_a_replay_follows_its_inputs_and_leaves_owners_as_they_were() -> None:
    phase = Recorded("draft", TapeRecorder(), hot=0)
    for value in (1.0, 2.0, 5.0):
        box = Box(value)
        before = dict(vars(box))
        assert run(phase, box) == [2 * value + 1]
        assert vars(box) == before and box.list == []
    assert (phase.runs, phase.replays, len(phase)) == (0, 3, 1)


def test_what_was_worked_out_before_is_worked_out_anew_while_recorded() -> None:
    phase = Recorded("draft", TapeRecorder(), hot=0)
    box = Box(1.0)
    box.twice()
    assert run(phase, box) == [3.0] and run(phase, Box(4.0)) == [9.0]


def test_few_recordings_are_kept() -> None:
    phase = Recorded("draft", TapeRecorder(), hot=0)
    for key in range(MOST + 5):
        run(phase, Box(1.0), key)
    assert len(phase) == MOST
    run(phase, Box(1.0), MOST + 4)
    assert phase.replays == MOST + 6 and len(phase) == MOST


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x[0] > 0),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x + torch.tensor([1.0, 2.0]),
        lambda x: torch.masked_select(x, x > 0),
    ],
)
def test_a_tape_refuses_what_a_capture_refuses(read: Callable[[Tensor], Any]) -> None:
    x = torch.ones(2)
    with torch.inference_mode(), pytest.raises(HostRead):
        TapeRecorder().record(lambda: read(x))


@torch.inference_mode()
def test_a_tape_freezes_numbers_and_addresses_and_follows_contents() -> None:
    x, number = torch.arange(3.0), [1.0]

    def function() -> tuple[Tensor, Tensor]:
        y = x.view(3, 1).expand(3, 2).flatten() * number[0]
        y[:2].add_(10)
        return y, y[2:].max(dim=0).values

    tape, (y, largest) = TapeRecorder().record(function)
    place = y.data_ptr()
    number[0] = 100.0
    x.add_(1)
    tape.replay()
    assert y.data_ptr() == place
    assert y.tolist() == [11, 11, 2, 2, 3, 3] and largest.item() == 3


@torch.inference_mode()
def test_a_tape_does_not_keep_what_it_reads_alive() -> None:
    x = [torch.ones(2)]
    tape, _ = TapeRecorder().record(lambda: x[0] + 1)
    tape.replay()
    x.clear()
    with pytest.raises(DanglingRead):
        tape.replay()


def test_what_has_no_memory_to_be_recorded_runs_as_it_is() -> None:
    class Full(TapeRecorder):
        def record(self, function: Any) -> Any:
            raise torch.OutOfMemoryError("full")

    phase = Recorded("draft", Full(), hot=0)
    with pytest.warns(UserWarning, match="full"):
        assert phase.run("key", lambda: 7, (), (), ()) == (7, False)


@torch.inference_mode()
def test_a_replay_spoils_what_later_recordings_of_its_pool_gave_and_nothing_else() -> None:
    x, pool = torch.ones(2), TapeRecorder()
    first, _ = pool.record(lambda: x + 1)
    second, later = pool.record(lambda: x + 2)
    other, apart = pool.apart().record(lambda: x + 3)
    for tape in (second, other):
        tape.replay()
    assert later.tolist() == [3, 3]
    first.replay()
    assert later.tolist() != [3, 3]
    assert apart.tolist() == [4, 4] and x.tolist() == [1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@torch.inference_mode()
def test_a_cuda_graph_follows_its_inputs() -> None:
    device = torch.device("cuda")
    x = torch.ones(4, device=device)
    recorder = CudaRecorder(device)
    graph, y = recorder.record(lambda: x.cumsum(0) * 2)
    other, z = recorder.record(lambda: x + 1)
    x.fill_(3)
    graph.replay()
    other.replay()
    assert y.tolist() == [6, 12, 18, 24] and z.tolist() == [4] * 4
