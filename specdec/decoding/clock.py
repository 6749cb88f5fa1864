"""Seconds by phase of a generation, and of each of its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

PHASES = ("prefill", "draft", "verify", "accept", "commit")


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given: before that, a clock has timed its launch."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


@dataclass(frozen=True)
class StepSeconds:
    """What one step took, in seconds.

    Attributes:
        levels: of each draft level: the drafter's proposal and the policy's expansion. The first
            includes whatever committed tokens the drafter reads before.
        verify: of the target forward.
        other: of all else since the step before was over: choosing the tree, accepting,
            committing, and what the policy and the drafter did after the step before.
    """

    levels: tuple[float, ...]
    verify: float
    other: float


class Clock:
    """Seconds by phase, and the draft forwards that no step can count.

    On a GPU the phases after the prefill are the host's: what the GPU still computes counts where
    the host waits for it. The total is right, and so is the sum over a step.

    Args:
        device: where the target computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.draft_forwards = 0
        self._levels: list[float] = []
        self._before = (0.0, 0.0)  # verification and all phases, when the step before was over

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time one phase."""
        started = time.perf_counter()
        try:
            yield
            if phase == "prefill":
                wait_for(self._device)
        finally:
            self.seconds[phase] += time.perf_counter() - started

    @contextmanager
    def draft_level(self) -> Iterator[None]:
        """Time one draft level, within the phase ``draft``."""
        started = time.perf_counter()
        yield
        self._levels.append(time.perf_counter() - started)
        self.draft_forwards += 1

    def step(self) -> StepSeconds:
        """Of the step that is over: all since the last call."""
        now = self.seconds["verify"], sum(self.seconds.values()) - self.seconds["prefill"]
        verify, total = (new - old for new, old in zip(now, self._before, strict=True))
        levels, self._levels, self._before = tuple(self._levels), [], now
        return StepSeconds(levels, verify, total - verify - sum(levels))
