"""A machine of known speed: time passes by the forwards that run, and by nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from specdec.drafting.network_drafter import NetworkProposer
from specdec.models.hf_target import HFTarget


@contextmanager
def machine(*, forward: float, token: float, level: float) -> Iterator[None]:
    """Within, ``time.perf_counter`` tells simulated seconds.

    All in hundredths of a second.

    Args:
        forward: what any target forward takes.
        token: what each of its tokens, rows together, adds.
        level: what a draft level takes.
    """
    now = 0.0
    target, draft = HFTarget.forward, NetworkProposer.propose

    def verified(self: Any, tokens: Any, *given: Any, **named: Any) -> Any:
        nonlocal now
        now += (forward + token * tokens.numel()) / 100
        return target(self, tokens, *given, **named)

    def drafted(self: Any, frontier: Any) -> Any:
        nonlocal now
        now += level / 100
        return draft(self, frontier)

    with ExitStack() as stack:
        stack.enter_context(mock.patch("time.perf_counter", lambda: now))
        stack.enter_context(mock.patch.object(HFTarget, "forward", verified))
        stack.enter_context(mock.patch.object(NetworkProposer, "propose", drafted))
        yield
