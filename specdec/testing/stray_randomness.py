"""Detects randomness that is drawn past the ``Randomness`` that was handed over.

Not seen here is a generator that a part makes for itself outside torch's operators, as
``random.Random(3)``; :func:`~specdec.testing.enumeration.outcomes` sees one that changes the
distribution of a draw from one run to the next.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from specdec.booleans import check_bools
from specdec.decoding.randomness import KeyedRandomness


class UnkeyedRandomnessError(AssertionError):
    """A part drew a random number that no key decides."""


class _NoRandomOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags and not _without_dropout(func, args):
            raise UnkeyedRandomnessError(
                f"the random operator {func} ran: draw through the Randomness that is handed over"
            )
        return func(*args, **(kwargs or {}))


def _without_dropout(func: Any, args: Any) -> bool:
    """Attention counts as a random operator for its dropout, which is off unless asked for."""
    names = [argument.name for argument in func._schema.arguments]
    if "dropout_p" not in names:
        return False
    place = names.index("dropout_p")
    return len(args) <= place or args[place] == 0


@contextmanager
def only_keyed_randomness(*, production: bool = False) -> Iterator[None]:
    """Within, random torch operators raise; a move of Python's or numpy's global generator does
    at the end.

    Args:
        production: whether :class:`~specdec.decoding.randomness.KeyedRandomness` may be used; where
            the test hands over another implementation, a part that makes one of its own is caught.

    Raises:
        UnkeyedRandomnessError: something was drawn that no key decides.
    """
    check_bools(production=production)

    def refuse(self: object, *args: object, **kwargs: object) -> Any:
        raise UnkeyedRandomnessError(
            "a part made a generator of its own: draw through the Randomness that is handed over"
        )

    off = mock.patch.object(KeyedRandomness, "counter", refuse)
    before = _global_states()
    with nullcontext() if production else off, _NoRandomOperators():  # type: ignore[no-untyped-call]
        yield
    if moved := [name for name, state in _global_states().items() if state != before[name]]:
        raise UnkeyedRandomnessError(f"the global generator of {' and '.join(moved)} was used")


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Within, the global generators of torch and Python start from ``seed``."""
    python = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)


def _global_states() -> dict[str, Any]:
    states: dict[str, Any] = {"Python's random": random.getstate()}
    states["torch"] = bytes(torch.get_rng_state().tolist())
    try:
        import numpy
    except ImportError:
        return states
    legacy: Any = numpy.random.get_state()
    states["numpy"] = str(legacy[:1]) + legacy[1].tobytes().hex() + str(legacy[2:])
    return states
