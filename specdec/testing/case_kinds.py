"""What each property is checked on: near cases, and of each kind that is far in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specdec.testing.case_strategies import WIDE, WIDEST, cases, model_cases
from specdec.testing.cases import Case
from specdec.testing.hypothesis_import import st
from specdec.testing.property import Kinds
from specdec.testing.subject import Subject

# Lengths of prompts; a text may have grown past what fits a byte.
LATE = (6, 12, 25, 60, 130, 300)
# The most levels and steps that texts are long enough for.
_DEEPEST, _STEPS = 32, 18


def near(rows: int = 3, **more: Any) -> st.SearchStrategy[Case]:
    """Short texts over a few tokens, every distribution open."""
    return cases(rows=rows, **more)


def deep(levels: int, sampled: bool, greedy: bool | None = False) -> st.SearchStrategy[Case]:
    """Texts as long as the strategy drafts, over two or three tokens.

    Args:
        levels: how deep it drafts.
        sampled: whether draft tokens are drawn: then few distributions are open.
    """
    longest = min(levels + 1, _DEEPEST)
    return cases(
        sizes=(2, 3),
        min_new=max(2, min(4, longest)),
        max_new=max(2, longest + 1),
        rows=2,
        greedy=greedy,
        vocabularies=(None, None, WIDE),
        lengths=(1, 2, 3, 5, 9, 40),
        opened=2 if sampled else 3,
        always=sampled,
        stopping=False,
        small=False,
    )


def wide(sampled: bool, greedy: bool | None = False, **more: Any) -> st.SearchStrategy[Case]:
    """Vocabularies of many tokens: more than five, eight and ten bits hold."""
    most: dict[str, Any] = {"max_new": 4, "min_new": 2, "rows": 2, "opened": 2 if sampled else 3}
    most["always"] = sampled
    return cases(
        sizes=(2, 3) if sampled else (3, 2, 4),
        greedy=greedy,
        vocabularies=(WIDE, 60, 1000),
        **{**most, **more},
    )


def widest(sampled: bool) -> st.SearchStrategy[Case]:
    """A vocabulary of more tokens than sixteen bits hold."""
    return cases(
        sizes=(2,) if sampled else (2, 3),
        max_new=3,
        min_new=2,
        rows=2,
        greedy=False,
        vocabularies=(WIDEST,),
        opened=1 if sampled else 2,
        stopping=False,
        small=False,
    )


def late(sampled: bool, greedy: bool | None = False, **more: Any) -> st.SearchStrategy[Case]:
    """Long prompts."""
    most: dict[str, Any] = {"max_new": 5, "min_new": 2, "rows": 2, "opened": 2 if sampled else 3}
    most["always"] = sampled
    return cases(
        sizes=(2, 3),
        greedy=greedy,
        vocabularies=(None, WIDE),
        lengths=LATE,
        **{**most, **more},
    )


def many(sampled: bool, greedy: bool | None = False, **more: Any) -> st.SearchStrategy[Case]:
    """Batches of many rows."""
    most: dict[str, Any] = {"max_new": 4, "min_new": 2, "opened": 2 if sampled else 3}
    most["always"] = sampled
    return cases(
        sizes=(2, 3),
        greedy=greedy,
        rows=8,
        fewest=4,
        lengths=range(1, 12),
        **{**most, **more},
    )


def steps(sampled: bool, apart: bool) -> st.SearchStrategy[Case]:
    """Texts of many steps, most of them certain.

    Args:
        sampled: whether draft tokens are drawn.
        apart: whether drafts are then wrong, so that each step gives one token, or mostly right.
    """
    return cases(
        sizes=(2, 3),
        min_new=8,
        max_new=_STEPS,
        rows=2,
        vocabularies=(None, None, WIDE),
        lengths=(1, 2, 4, 9, 60),
        opened=2 if sampled or apart else 4,
        apart=apart,
        stopping=False,
    )


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
