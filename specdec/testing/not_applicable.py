"""Why a property means nothing for a subject."""

from __future__ import annotations

from specdec.testing.subject import Subject


def no_growth(subject: Subject) -> str | None:
    if not subject.drafts:
        return "it drafts nothing"
    return None if subject.grows else "its drafter gives whole trees: there is no tree policy"


def no_reference(subject: Subject) -> str | None:
    if subject.adaptive:
        return no_growth(subject) or "its trees depend on what it has learned and measured"
    missing = None if subject.reference else "nothing is known of what the tree policy is to do"
    return no_growth(subject) or missing


def no_values(subject: Subject) -> str | None:
    unknown = None if subject.known_values else "its values are learned: only the policy knows them"
    return no_growth(subject) or unknown


def no_table(subject: Subject) -> str | None:
    other = (
        None
        if subject.has_table
        else "its drafter's distribution is no table over the whole vocabulary"
    )
    return no_growth(subject) or other


def no_memory(subject: Subject) -> str | None:
    if not subject.drafts:
        return "it drafts nothing"
    if subject.remembers:
        return "its drafts depend on the steps in which the text was committed"
    return "its drafts depend on how earlier drafts fared" if subject.adaptive else None


def no_models(subject: Subject) -> str | None:
    return (
        None if subject.any_model else "the checkpoint of its drafter fits the table models alone"
    )
