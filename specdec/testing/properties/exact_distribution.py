"""The law of the text: by enumeration equal to the target's, and the same in any batch."""

from __future__ import annotations

from dataclasses import replace

from specdec.testing.cases import Case
from specdec.testing.enumerated_distributions import (
    Autoregressive,
    Enumerated,
    TextLaw,
    difference,
    sequence_law,
    step_law,
    total_variation,
)
from specdec.testing.properties.common import PRECISION, require, same_texts, texts
from specdec.testing.subject import Subject


def exact_law(subject: Subject, case: Case) -> float:
    """One step, completed by the target, has the target's autoregressive law.

    By induction over prefixes that is the law of the whole text. Neighbours in the batch are there
    and must not matter.
    """
    law, reference = _against(subject, case, _step(subject, case))
    return _same_law(law, reference)


def whole_sequences(subject: Subject, case: Case) -> float:
    """Every draw of every step enumerated: the law of whole sequences is the target's."""
    found = sequence_law(subject, case)
    subject.reach.note(case, found.levels, found.steps)
    law, reference = _against(subject, case, found)
    return _same_law(law, reference)


def neighbours_do_not_matter(subject: Subject, case: Case) -> float:
    """A row's law, or under ``match`` its text, is the same alone and in any batch order."""
    if not subject.seed_exact:
        alone = _step(subject, replace(case, prompts=case.prompts[:1]))
        law, other, _ = _against(subject, case, _step(subject, case), alone)
        return _same_law(law, other, "alone the row gives them")
    rows = range(len(case.prompts))
    seeds = [case.seed + row for row in rows]
    engine = subject.of(case)
    together_texts = texts(engine, case, seeds)
    turned = texts(engine, case, seeds[::-1], rows[::-1])[::-1]
    same_texts(together_texts, turned, "the batch in reverse order gives other tokens")
    one_by_one = [texts(engine, case, [seeds[row]], [row])[0] for row in rows]
    return same_texts(together_texts, one_by_one, "a row gives other tokens when it is alone")


def measured_total_variation(subject: Subject, case: Case) -> float:
    """For lossy strategies: how far the law of a step is from the target's; never a failure."""
    return total_variation(*_against(subject, case, _step(subject, case)))


def _step(subject: Subject, case: Case) -> Enumerated:
    """The law of a step."""
    law = step_law(subject, case)
    subject.reach.note(case, law.levels, law.steps)
    return law


def _against(subject: Subject, case: Case, *laws: Enumerated) -> list[TextLaw]:
    """The laws, completed by the target, and the target's own."""
    return Autoregressive(case, subject.of(case)).against(*laws)


def _same_law(law: TextLaw, reference: TextLaw, whose: str = "the target gives them") -> float:
    gap, text = difference(law, reference)
    require(
        gap <= PRECISION,
        f"new tokens that begin {list(text)} have probability {law.get(text, 0.0):.6g}, {whose} "
        f"{reference.get(text, 0.0):.6g}; total variation {total_variation(law, reference):.3g}",
    )
    return gap
