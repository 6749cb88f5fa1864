"""The suite is tested itself: it catches every planted bug, by the property meant for it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from planted import PLANTED, SOUND, Planted

from specdec.testing import Subject
from specdec.testing.suite import FULL, PROPERTIES, QUICK, check

BY_NAME = {prop.name: prop for prop in PROPERTIES}
# What the suite itself raises has another name, or none.
CRASH = re.compile(r"(Attribute|Index|Key|Name|NotImplemented|Runtime|Type|Value)Error")


def _case(planted: Planted) -> Any:
    marks = [pytest.mark.slow] if planted.rare else []
    return pytest.param(planted, marks=marks, id=planted.bug.replace(" ", "-"))


@pytest.mark.parametrize("planted", [_case(planted) for planted in PLANTED])
def test_the_suite_catches(planted: Planted) -> None:
    with planted.patch():
        subject = Subject(**planted.subject)
        assert BY_NAME[planted.seen_by].excuse(subject) is None
        for examples in dict.fromkeys((planted.examples, QUICK, 3 * QUICK, FULL)):
            verdict = check(subject, BY_NAME[planted.seen_by], examples=examples, shrink=False)
            if verdict.failure is not None:
                break
    assert verdict.failure is not None, f"{planted.seen_by} does not see: {planted.bug}"
    assert "counter-example" in verdict.failure
    assert not CRASH.match(verdict.failure), "it only crashed"


@pytest.mark.parametrize("examples", [2, pytest.param(QUICK, marks=pytest.mark.slow)])
@pytest.mark.parametrize("part", SOUND)
def test_the_parts_without_their_flaw_are_sound(part: str, examples: int) -> None:
    given, names = SOUND[part]
    subject = Subject(**given)
    for name in names:
        verdict = check(subject, BY_NAME[name], examples=examples, shrink=False)
        assert verdict.failure is None, verdict.failure


def test_every_property_that_can_fail_catches_a_bug() -> None:
    can_fail = {prop.name for prop in PROPERTIES if not prop.lossy}
    assert {planted.seen_by for planted in PLANTED} == can_fail


def test_bugs_have_names_of_their_own() -> None:
    assert len({planted.bug for planted in PLANTED}) == len(PLANTED)
