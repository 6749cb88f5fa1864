"""The distribution of the text: by enumeration equal to the target's, and the same in any batch."""

from __future__ import annotations

from dataclasses import replace

from specdec.testing.cases import Case
from specdec.testing.enumerated_distributions import (
    Autoregressive,
    Enumerated,
    TextDistribution,
    difference,
    sequence_distribution,
    step_distribution,
    total_variation,
)
from specdec.testing.properties.common import PRECISION, require, same_texts, texts
from specdec.testing.subject import Subject


def exact_distribution(subject: Subject, case: Case) -> float:
    """One step, completed by the target, has the target's autoregressive distribution.

    By induction over prefixes that is the distribution of the whole text. Neighbours in the batch
    are there and must not matter.
    """
    distribution, reference = _against(subject, case, _step(subject, case))
    return _same_distribution(distribution, reference)


def whole_sequences(subject: Subject, case: Case) -> float:
    """Every draw of every step enumerated: the distribution of whole sequences is the target's."""
    found = sequence_distribution(subject, case)
    subject.reach.note(case, found.levels, found.steps)
    distribution, reference = _against(subject, case, found)
    return _same_distribution(distribution, reference)


def neighbours_do_not_matter(subject: Subject, case: Case) -> float:
    """A row's distribution, or under ``match`` its text, is the same alone and in any batch
    order."""
    if not subject.seed_exact:
        alone = _step(subject, replace(case, prompts=case.prompts[:1]))
        distribution, other, _ = _against(subject, case, _step(subject, case), alone)
        return _same_distribution(distribution, other, "alone the row gives them")
    rows = range(len(case.prompts))
    seeds = [case.seed + row for row in rows]
    engine = subject.of(case)
    together_texts = texts(engine, case, seeds)
    turned = texts(engine, case, seeds[::-1], rows[::-1])[::-1]
    same_texts(together_texts, turned, "the batch in reverse order gives other tokens")
    one_by_one = [texts(engine, case, [seeds[row]], [row])[0] for row in rows]
    return same_texts(together_texts, one_by_one, "a row gives other tokens when it is alone")


def measured_total_variation(subject: Subject, case: Case) -> float:
    """For lossy strategies: how far the distribution of a step is from the target's; never a
    failure."""
    return total_variation(*_against(subject, case, _step(subject, case)))


def _step(subject: Subject, case: Case) -> Enumerated:
    """The distribution of a step."""
    distribution = step_distribution(subject, case)
    subject.reach.note(case, distribution.levels, distribution.steps)
    return distribution


def _against(subject: Subject, case: Case, *distributions: Enumerated) -> list[TextDistribution]:
    """The distributions, completed by the target, and the target's own."""
    return Autoregressive(case, subject.of(case)).against(*distributions)


def _same_distribution(
    distribution: TextDistribution,
    reference: TextDistribution,
    whose: str = "the target gives them",
) -> float:
    gap, text = difference(distribution, reference)
    require(
        gap <= PRECISION,
        f"new tokens that begin {list(text)} have probability {distribution.get(text, 0.0):.6g}, "
        f"{whose} {reference.get(text, 0.0):.6g}; total variation "
        f"{total_variation(distribution, reference):.3g}",
    )
    return gap
