"""Calls that are recorded once for every shape and then replayed, as CUDA graphs are."""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Slot = tuple[object, str]

# Recordings that one phase keeps; the one that has not been used for longest goes first.
MOST = 32


class Recording(Protocol):
    """Operators that can be run again on the very memory that they ran on."""

    def replay(self) -> None:
        """Run them; no Python of the recorded function runs."""


class Recorder(Protocol):
    """What can record a function of tensor operations.

    A function may be called more than once while it is recorded, and its operators have run only
    after the first :meth:`Recording.replay`.
    """

    def record(self, function: Callable[[], T]) -> tuple[Recording, T]:
        """The operators of ``function``, and its result, which every replay fills again.

        Raises:
            Exception: whatever a function raises that reads the device or cannot be recorded.
        """

    def apart(self) -> Recorder:
        """Another one, whose recordings write over nothing that those of this one gave.

        Of one recorder's results only those of the last replay are to be read.
        """

    def address(self, tensor: Tensor) -> Hashable:
        """Where a tensor lies: equal only for tensors that a recording need not tell apart."""


@dataclass
class _Recorded:
    recording: Recording
    static: list[Tensor]
    result: Any


class Recorded:
    """A phase of the decoding step that is recorded for every key that comes up often.

    The first ``hot`` times a key runs as it is. Then it is recorded on copies of all tensors that
    change from step to step, and from then on these copies are filled and the recording replayed.
    Where recording fails, a warning gives the reason, once, and the phase runs as it is from then
    on.

    Args:
        name: of the phase, for the warning.
        hot: how often a key runs as it is.

    Attributes:
        failure: why nothing is recorded any more; None while all is well.
        runs, replays: how often the phase ran as it is, and from a recording.
    """

    def __init__(self, name: str, recorder: Recorder, *, hot: int) -> None:
        self.failure: str | None = None
        self.runs = self.replays = 0
        self._name, self._recorder, self._hot = name, recorder, hot
        self._asked: Counter[Hashable] = Counter()
        self._kept: OrderedDict[Hashable, _Recorded] = OrderedDict()
        self._refused: set[str] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def run(
        self,
        key: Hashable,
        function: Callable[..., T],
        inputs: Sequence[Tensor],
        reads: Sequence[Slot],
        owners: Sequence[object],
    ) -> tuple[T, bool]:
        """``function(*inputs)``, and whether it was replayed: its tensors are then written again by
        the next replay.

        Args:
            key: all that the function depends on besides tensors and their sizes.
            inputs: tensors that it is given.
            reads: attributes that hold further tensors it reads and that change from call to call;
                those that hold none are left out.
            owners: further objects whose attributes it may set; those of all owners are set back
                after recording. What an owner names in ``derived`` is worked out anew within.
        """
        if self.failure is not None:
            return self._eager(function, inputs)
        held = [(owner, name, getattr(owner, name)) for owner, name in reads]
        held = [slot for slot in held if isinstance(slot[2], Tensor)]
        tensors = [*inputs, *(tensor for _, _, tensor in held)]
        names = tuple((type(owner).__name__, name) for owner, name, _ in held)
        key = (key, names, tuple((x.shape, x.dtype) for x in tensors))
        if key not in self._kept:
            if len(self._asked) > 100 * MOST:
                self._asked.clear()
            self._asked[key] += 1
            if self._asked[key] <= self._hot:
                return self._eager(function, inputs)
            slots = [(owner, name) for owner, name, _ in held]
            touched = {id(owner): owner for owner in (*owners, *(owner for owner, _ in slots))}
            recorded = self._record(function, tensors, slots, list(touched.values()))
            if recorded is None:
                return self._eager(function, inputs)
            self._kept[key] = recorded
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        kept = self._kept[key]
        if tensors:
            torch._foreach_copy_(kept.static, tensors)
        kept.recording.replay()
        self.replays += 1
        return kept.result, True

    def clear(self) -> None:
        """Give back the memory of all recordings."""
        self._kept.clear()

    def refuse(self, reason: str) -> None:
        """Warn, once for each reason, that the phase is not recorded."""
        if reason not in self._refused:
            self._refused.add(reason)
            warnings.warn(
                f"the {self._name} phase runs without a CUDA graph: {reason}", stacklevel=2
            )

    def _eager(self, function: Callable[..., T], inputs: Sequence[Tensor]) -> tuple[T, bool]:
        self.runs += 1
        return function(*inputs), False

    def _record(
        self,
        function: Callable[..., T],
        tensors: Sequence[Tensor],
        slots: Sequence[Slot],
        owners: Sequence[object],
    ) -> _Recorded | None:
        static = [tensor.clone() for tensor in tensors]
        given = len(tensors) - len(slots)

        def call() -> T:
            with _set_back(owners):
                for owner in owners:
                    for name in getattr(owner, "derived", ()):
                        setattr(owner, name, None)
                for (owner, name), tensor in zip(slots, static[given:], strict=True):
                    setattr(owner, name, tensor)
                return function(*static[:given])

        try:
            recording, result = self._recorder.record(call)
        except Exception as error:  # drivers and parts fail with whatever they fail with
            first = str(error).strip().partition("\n")[0]
            self.failure = f"{type(error).__name__}: {first}"
            self._kept.clear()
            self.refuse(f"recording it failed: {self.failure}")
            return None
        return _Recorded(recording, static, result)


@contextmanager
def _set_back(owners: Sequence[object]) -> Iterator[None]:
    """Within, attributes may be set and lists filled; afterwards they are as before."""
    before = [dict(vars(owner)) for owner in owners]
    try:
        for owner in owners:
            for name, value in vars(owner).items():
                if isinstance(value, list):
                    vars(owner)[name] = list(value)
        yield
    finally:
        for owner, attributes in zip(owners, before, strict=True):
            vars(owner).clear()
            vars(owner).update(attributes)
