"""How long a linear layer takes on its weight as it is and on the packed copy, by rows."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Numbers of rows that are measured: one token, small trees, large ones.
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
# Layers and bytes of one shape that are run in turns: so weights come from memory, as in decoding,
# and not from the innermost caches.
_LAYERS, _BYTES = 8, 32 << 20
# Everything is measured once, and again until this time has passed.
_SECONDS, _REPETITIONS = 0.5, 8
# A call on several threads counts if this one had a processor for so much of its time: on a busy
# machine it waits for the others.
_UNDISTURBED = 0.8


class LinearShape(NamedTuple):
    """What the seconds of a linear layer depend on besides the number of rows."""

    in_features: int
    out_features: int
    dtype: torch.dtype


class CopySeconds(NamedTuple):
    """Seconds of one product."""

    as_it_is: float
    packed: float


class TwoCopies(Protocol):
    """A layer that can run on either copy of its weight."""

    @property
    def shape(self) -> LinearShape: ...

    def run_as_it_is(self, x: Tensor) -> Tensor: ...

    def run_packed(self, x: Tensor) -> Tensor: ...


class CopyTimes:
    """Seconds of both copies, by the shape of a layer and the number of rows.

    Shapes that are not known are measured when layers of them are first packed, with the threads
    that torch has then; what has been measured stays. Where a busy machine leaves nothing to
    compare, nothing is known, and the packed copy runs.

    Args:
        known: for each shape seconds by number of rows, measured before.
    """

    def __init__(
        self, known: Mapping[LinearShape, Mapping[int, CopySeconds]] | None = None
    ) -> None:
        self._known = {shape: dict(seconds) for shape, seconds in (known or {}).items()}

    @property
    def known(self) -> dict[LinearShape, dict[int, CopySeconds]]:
        """A copy of the table."""
        return {shape: dict(seconds) for shape, seconds in self._known.items()}

    def measure(self, layers: Iterable[TwoCopies]) -> None:
        """Measure the shapes of ``layers`` that are not known."""
        unknown: dict[LinearShape, list[TwoCopies]] = {}
        for layer in layers:
            if layer.shape not in self._known:
                unknown.setdefault(layer.shape, []).append(layer)
        self._known.update(_measured([_sample(each) for each in unknown.values()]))

    def seconds(self, shape: LinearShape, width: int) -> CopySeconds:
        """Of one product over ``width`` rows; linear between measured widths, constant outside.

        Raises:
            KeyError: a shape that is neither known nor measured.
        """
        known = self._known[shape]
        widths = sorted(known)
        above = bisect_left(widths, width)
        if above == 0 or above == len(widths):
            return known[widths[min(above, len(widths) - 1)]]
        low, high = widths[above - 1], widths[above]
        weight = (width - low) / (high - low)
        pairs = zip(known[low], known[high], strict=True)
        return CopySeconds(*((1 - weight) * a + weight * b for a, b in pairs))

    def packed_is_faster(self, shape: LinearShape) -> tuple[bool, ...]:
        """For 0, 1, 2, ... rows; the last entry, of the widest measured, holds for all beyond."""
        widest = max(self._known[shape], default=None)
        if widest is None:
            return (True,)
        every = (self.seconds(shape, width) for width in range(widest + 1))
        return tuple(seconds.packed <= seconds.as_it_is for seconds in every)


def _sample(layers: Sequence[TwoCopies]) -> Sequence[TwoCopies]:
    shape = layers[0].shape
    size = shape.in_features * shape.out_features * shape.dtype.itemsize
    return layers[: min(_LAYERS, 1 + _BYTES // size)]


@torch.inference_mode()
def _measured(
    groups: Sequence[Sequence[TwoCopies]],
) -> dict[LinearShape, dict[int, CopySeconds]]:
    """Seconds by shape and width; each group has layers of one shape.

    All layers run on one copy, then all on the other, as forwards do. Of a layer the fastest call
    counts, of a shape the lower quartile of its layers.
    """
    deadline = time.perf_counter() + _SECONDS
    fastest = {width: [_Fastest(group, width) for group in groups] for width in WIDTHS}
    for _ in range(_REPETITIONS):
        for each in fastest.values():
            for copy in (False, True):
                for group in each:
                    group.run(packed=copy)
        if time.perf_counter() > deadline:
            break
    return {
        group[0].shape: {
            width: seconds for width in WIDTHS if (seconds := fastest[width][i].seconds())
        }
        for i, group in enumerate(groups)
    }


class _Fastest:
    """The fastest calls of layers of one shape at one width."""

    def __init__(self, layers: Sequence[TwoCopies], width: int) -> None:
        shape = layers[0].shape
        values = torch.linspace(-1, 1, width * shape.in_features, dtype=torch.float32)
        self._x = values.to(shape.dtype).view(1, width, shape.in_features)
        self._layers = layers
        self._on_one_thread = torch.get_num_threads() == 1
        self._best: dict[bool, dict[int, float]] = defaultdict(dict)

    def run(self, *, packed: bool) -> None:
        """Every layer once, on one of the copies."""
        best = self._best[packed]
        for i, layer in enumerate(self._layers):
            call = layer.run_packed if packed else layer.run_as_it_is
            started, cpu_started = time.perf_counter(), time.thread_time()
            call(self._x)
            cpu_seconds, seconds = time.thread_time() - cpu_started, time.perf_counter() - started
            if self._on_one_thread:
                seconds = cpu_seconds
            elif cpu_seconds < _UNDISTURBED * seconds:
                continue
            best[i] = min(seconds, best.get(i, seconds))

    def seconds(self) -> CopySeconds | None:
        """None where every call on one of the copies was disturbed."""
        best = [sorted(self._best[packed].values()) for packed in (False, True)]
        return CopySeconds(*(each[len(each) // 4] for each in best)) if all(best) else None
