"""The suite is tested itself: it catches every planted bug, by the property meant for it."""

from __future__ import annotations

import pytest
from broken import Broken, Rejection
from planted import PAIR, PLANTED, Planted

from specdec.testing.cases import Subject
from specdec.testing.suite import PROPERTIES, QUICK, check

pytestmark = pytest.mark.slow

BY_NAME = {prop.name: prop for prop in PROPERTIES}


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.bug.replace(" ", "-"))
def test_the_suite_catches(planted: Planted) -> None:
    with planted.patch():
        subject = Subject(**planted.subject)
        verdict = check(subject, BY_NAME[planted.seen_by], examples=2 * QUICK, shrink=False)
    assert verdict.failure is not None, f"{planted.seen_by} does not see: {planted.bug}"
    assert "counter-example" in verdict.failure


def test_the_broken_acceptor_without_its_flaw_is_exact() -> None:
    subject = Subject(
        "draft_model",
        drafter="table",
        plugins=[Broken(Rejection)],
        acceptor="broken",
        options=PAIR,
    )
    for prop in PROPERTIES:
        if prop.concerns(subject):
            assert check(subject, prop, examples=10).failure is None
