"""Counts what a decoding step costs: operators outside the networks, and reads by the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from torch import Tensor, nn
from torch.nn.modules import module
from torch.utils._python_dispatch import TorchDispatchMode

from specdec.drafting.network_drafter import NetworkProposer
from specdec.models.hf_target import HFTarget

# What makes the host wait for the device. On the CPU some of them never reach the dispatcher.
READS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "numpy", "cpu")
CALLS = ((HFTarget, "forward"), (HFTarget, "logits"), (NetworkProposer, "propose"))
READING_OPERATORS = ("nonzero", "_local_scalar_dense", "masked_select", "unique", "equal")


@dataclass
class Counts:
    """Operators, views included, and host reads.

    Attributes:
        outside: operators that ran in no module's forward and in no call of a network.
        around: operators that a call of the target or of a draft network runs around its modules:
            masks, positions, slots.
        inside: operators in a module's forward: the networks, with what they write into caches.
        reads: times that the host asked for a value, by method or operator.
    """

    outside: Counter[str] = field(default_factory=Counter)
    around: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)


class _Counting(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts, self.depth, self.calls = counts, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        counts = self.counts
        where = counts.inside if self.depth else counts.around if self.calls else counts.outside
        where[name] += 1
        if name in READING_OPERATORS:
            self.counts.reads[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counting() -> Iterator[Counts]:
    """Within, operators and host reads are counted."""
    counts = Counts()
    mode = _Counting(counts)

    def enter(_: nn.Module, __: Any) -> None:
        mode.depth += 1

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        mode.depth -= 1

    def called(owner: type, name: str) -> Any:
        true = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            mode.calls += 1
            try:
                return true(*args, **kwargs)
            finally:
                mode.calls -= 1

        return mock.patch.object(owner, name, call)

    def counted(name: str) -> Any:
        true = getattr(Tensor, name)

        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            before = sum(counts.reads.values())
            result = true(self, *args, **kwargs)
            if sum(counts.reads.values()) == before:
                counts.reads[name] += 1
            return result

        return read

    with ExitStack() as stack:
        for name in READS:
            stack.enter_context(mock.patch.object(Tensor, name, counted(name)))
        for owner, name in CALLS:
            stack.enter_context(called(owner, name))
        stack.callback(module.register_module_forward_pre_hook(enter).remove)
        stack.callback(module.register_module_forward_hook(leave, always_call=True).remove)
        stack.enter_context(mode)
        yield counts
