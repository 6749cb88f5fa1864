"""Parts of strategies for tests, made from functions and classes of one generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specdec.decoding.interfaces import LevelProposer, TreeGrower, TreePolicy
from specdec.decoding.state import State


class GrownBy(TreePolicy):
    """A policy whose every generation has a grower of its own.

    Args:
        make: makes it; called with nothing.
    """

    def __init__(self, make: Callable[[], TreeGrower]) -> None:
        self._make = make

    def start(self, state: State, proposer: LevelProposer | None) -> TreeGrower:
        return self._make()


def policy_of(make: Callable[[], TreeGrower]) -> Callable[[Any], TreePolicy]:
    """A component's factory: its options are not looked at."""
    return lambda options: GrownBy(make)
