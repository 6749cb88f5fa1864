"""What happens in the cases of the suite: a property of accepted paths says nothing without any."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from specdec.decoding.step import Step
from specdec.testing import Subject
from specdec.testing.cases import Case
from specdec.testing.properties.common import shrinking
from specdec.testing.suite import PROPERTIES, QUICK, Property, check

MATCH: dict[str, Any] = {"strategy": "eagle2", "drafter": "table"}
REJECTION: dict[str, Any] = {"strategy": "draft_model", "drafter": "table"}
# In each of the cases of ``stop_rules_hold``, whose texts are the longest.
LEAST = {
    "drafted": 40,
    "accepted": 40,
    "two or more accepted": 10,
    "eos inside an accepted path": 2,
    "stop string inside an accepted path": 1,
    "stop string across steps": 1,
    "max_new_tokens reached with accepted tokens": 5,
    "one row has less room than the tree is deep": 2,
    "a row left the batch while others went on": 5,
    "a row left a batch with a processor for each row": 2,
    "a row left a batch with stop strings": 2,
}
# The distribution of one step is examined: its texts are short.
LEAST_OF_DISTRIBUTION = {
    "drafted": 40,
    "accepted": 20,
    "two or more accepted": 5,
    "eos inside an accepted path": 2,
    "stop string inside an accepted path": 1,
}


@pytest.mark.parametrize("strategy", [MATCH, REJECTION], ids=["match", "rejection"])
@pytest.mark.parametrize(
    ("name", "least"), [("stop_rules_hold", LEAST), ("exact_distribution", LEAST_OF_DISTRIBUTION)]
)
def test_everything_happens(strategy: dict[str, Any], name: str, least: dict[str, int]) -> None:
    seen: Counter[str] = Counter()

    def collect(subject: Subject, case: Case) -> float:
        seen.update(events(subject, case))
        return 0.0

    (prop,) = [prop for prop in PROPERTIES if prop.name == name]
    counting = Property(collect, prop.cases, share=prop.share)
    assert check(Subject(**strategy), counting, examples=QUICK // 2).failure is None
    assert not {event: seen[event] for event in least if seen[event] < least[event]}


def events(subject: Subject, case: Case) -> Counter[str]:
    """How often each event happens in a generation, by row and step."""
    seen: Counter[str] = Counter()
    running, before = shrinking(subject.of(case), case), list(range(len(case.prompts)))
    for step in running:
        if left := len(before) - len(step.request_rows):
            seen["a row left the batch while others went on"] += left
            if "min_new_tokens" in case.settings and len(set(map(len, case.prompts))) > 1:
                seen["a row left a batch with a processor for each row"] += left
            if "stop" in case.settings:
                seen["a row left a batch with stop strings"] += left
        before = list(step.request_rows)
        for row in range(len(before)):
            own = len(running.new_tokens(before[row]))
            room = running.state.stopping.limits[row] - len(case.prompts[before[row]]) - own
            seen.update(_of_row(step, row, own, room))
    return seen


def _of_row(step: Step, row: int, written: int, room: int) -> list[str]:
    """What happens to one row in a step, after which ``written`` tokens and ``room`` are there."""
    new, accepted = len(step.new_tokens[row]), step.accepted[row]
    reason = step.finish_reasons[row]
    cut = new > 0 and accepted == new  # the bonus token is left out
    happened = {
        "drafted": step.tried[row] > 0,
        "accepted": accepted > 0,
        "two or more accepted": accepted > 1,
        "eos inside an accepted path": cut and reason == "eos",
        "stop string inside an accepted path": cut and reason == "stop",
        "stop string across steps": reason == "stop" and written > new,
        "max_new_tokens reached with accepted tokens": reason == "length" and accepted > 0,
        "one row has less room than the tree is deep": new > 0
        and step.tree.depth > max(0, room + new - 1),
    }
    return [event for event, happens in happened.items() if happens]
