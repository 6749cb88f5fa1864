"""What each property is checked on: near cases, and of each kind that is far in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specdec.testing.case_strategies import (
    cases,
    deep,
    late,
    many,
    model_cases,
    near,
    steps,
    wide,
    widest,
)
from specdec.testing.property import Kinds
from specdec.testing.subject import Subject


def step_distributions(
    rows: int = 2, fewest: int = 1, greedy: bool | None = False
) -> Callable[[Subject], Kinds]:
    """Short texts, and of each kind that goes far in one way."""

    def kinds(subject: Subject) -> Kinds:
        sampled = subject.sampled
        few: dict[str, Any] = {
            "sizes": (3, 2) if sampled else (3, 2, 4),
            "min_new": 2,
            "max_new": 3,
        }
        here = near(rows, **few, fewest=fewest, greedy=greedy)
        texts = late(sampled, max_new=max(5, min(subject.levels + 1, 8)))
        far = [(many(sampled), 1.5), (wide(sampled), 1.5), (texts, 1.5), (widest(sampled), 0.75)]
        if fewest > 1:
            return [(here, 3), (many(sampled, greedy), 1)]
        drafted = deep(subject.levels, sampled)
        return [*far, (drafted, 3.5), (here, 4)]

    return kinds


def whole_texts(subject: Subject) -> Kinds:
    """Short texts, and texts of many steps."""
    few = near(2, sizes=(3, 2), min_new=3, max_new=3)
    return [(few, 1), (steps(subject.sampled, True), 1), (steps(subject.sampled, False), 1)]


def everywhere(**more: Any) -> Callable[[Subject], Kinds]:
    """Texts over few tokens and many, early and late, alone and in batches."""

    def kinds(subject: Subject) -> Kinds:
        long: dict[str, Any] = {"max_new": 32, "min_new": 16, "stopping": False}
        far: dict[str, Any] = {"opened": 3, "always": False, "max_new": 12, "min_new": 2}
        return [
            (cases(**more), 2),
            (cases(**{"rows": 5, "fewest": 3, "stopping": True, **more}), 1),
            (cases(**{**long, **more}), 1),
            (wide(False, None, **{**far, **more}), 1),
            (late(False, None, **{**far, **more}), 1),
            (many(False, None, **{**far, **more}), 1),
        ]

    return kinds


def small_models(subject: Subject) -> Kinds:
    """At temperature 0 alone where the acceptor keeps no more than the distribution."""
    return [(model_cases(greedy=None if subject.seed_exact else True), 1)]
