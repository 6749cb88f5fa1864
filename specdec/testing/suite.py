"""The suite: which properties a strategy must have, and running them with Hypothesis."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as configure
from hypothesis.errors import Flaky

from specdec.testing import properties
from specdec.testing.cases import Case
from specdec.testing.enumeration import EnumerationError
from specdec.testing.generator import generator_has_its_laws
from specdec.testing.strategies import cases, model_cases
from specdec.testing.subject import Subject
from specdec.testing.ticking import ticking
from specdec.testing.verdict import Verdict as Verdict

# Vocabularies and lengths at which every outcome can be enumerated.
_LAW: dict[str, Any] = {"sizes": (3, 2, 4), "min_new": 2, "max_new": 3, "rows": 2}
_WHOLE: dict[str, Any] = {"sizes": (3, 2), "min_new": 3, "max_new": 3, "rows": 2}
QUICK, FULL = 40, 300


@dataclass(frozen=True)
class Property:
    """One property of a strategy.

    Attributes:
        check: raises an AssertionError where it does not hold; returns the largest difference.
        cases: what Hypothesis draws for it.
        share: of the suite's number of examples.
        unit: what the difference is measured in; empty where things are the same or are not.
        seed_exact: whether it only means something for acceptors that draw as plain decoding.
        lossy: whether it is for lossy strategies, and other properties of the law are not.
        law: whether a lossy strategy is excused from it.
        only_if: whether it means something for the subject.
    """

    check: Callable[[Subject, Case], float]
    cases: Any
    share: float = 1.0
    unit: str = ""
    seed_exact: bool = False
    lossy: bool = False
    law: bool = False
    only_if: Callable[[Subject], bool] = lambda subject: True

    @property
    def name(self) -> str:
        """What users see."""
        return self.check.__name__

    @property
    def meaning(self) -> str:
        """One sentence."""
        return (self.check.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")

    def cases_of(self, examples: int) -> int:
        """How many cases it is checked on."""
        return max(1, int(examples * self.share))

    def concerns(self, subject: Subject) -> bool:
        """Whether the subject must have it."""
        if not self.only_if(subject):
            return False
        if not subject.lossless:
            return self.lossy or not (self.law or self.seed_exact)
        return not self.lossy and (subject.seed_exact or not self.seed_exact)


PROPERTIES = (
    Property(
        properties.exact_law, cases(**_LAW, greedy=False), share=3, unit="probability", law=True
    ),
    Property(properties.whole_sequences, cases(**_WHOLE), share=0.5, unit="probability", law=True),
    Property(properties.neighbours_do_not_matter, cases(**{**_LAW, "rows": 3}, fewest=2), law=True),
    Property(properties.same_as_plain_for_any_noise, cases(noise=True), seed_exact=True),
    Property(properties.same_as_plain_for_any_seed, cases(), seed_exact=True),
    Property(
        properties.same_as_plain_on_real_models,
        model_cases(),
        share=0.5,
        law=True,
        only_if=lambda subject: subject.any_model,
    ),
    Property(properties.stop_rules_hold, cases()),
    Property(properties.cache_is_a_fresh_prefill, cases()),
    Property(properties.trees_are_well_formed, cases(max_new=6), unit="probability"),
    Property(
        properties.tree_is_the_reference,
        cases(),
        unit="log q",
        only_if=lambda subject: subject.grows and subject.reference is not None,
    ),
    Property(
        properties.values_are_products,
        cases(),
        share=0.5,
        unit="log q",
        only_if=lambda subject: subject.grows and subject.known_values,
    ),
    Property(
        properties.draft_law_is_the_table,
        cases(),
        share=0.5,
        unit="probability",
        only_if=lambda subject: subject.grows and subject.has_table,
    ),
    Property(
        properties.drafter_is_as_if_fresh,
        cases(),
        unit="log q",
        only_if=lambda subject: subject.drafts and not subject.adaptive,
    ),
    Property(properties.options_round_trip, cases(), share=0.1),
    Property(properties.runs_repeat, cases()),
    Property(properties.only_keyed_randomness_is_used, cases(max_new=4), share=0.5),
    Property(generator_has_its_laws, cases(), share=0, unit="sd"),
    Property(
        properties.measured_total_variation, cases(**_LAW), unit="total variation", lossy=True
    ),
)


def check(
    subject: Subject,
    prop: Property,
    *,
    examples: int = FULL,
    shrink: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> Verdict:
    """Check one property on ``examples`` cases (times its share), the same ones every time.

    Drafts of an adaptive subject may depend on the clock: it then ticks by the number of looks.

    It fails as well if more than half of the cases had too many outcomes: too little was seen.

    Args:
        shrink: whether to look for the smallest case when one fails.
        progress: called after every case.
    """
    if subject.adaptive:
        prop = replace(prop, check=ticking()(prop.check))
    done, large, largest = 0, 0, 0.0
    found: str | None = None

    @configure(
        max_examples=prop.cases_of(examples),
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(prop.cases)
    def holds(case: Case) -> None:
        nonlocal done, large, largest, found
        try:
            largest = max(largest, prop.check(subject, case))
        except EnumerationError:
            large += 1
        except Exception as error:
            kind = "" if type(error) is AssertionError else f"{type(error).__name__}: "
            found = f"{kind}{error}\ncounter-example:{case}"
            raise AssertionError(found) from error
        else:
            done += found is None  # shrinking is no further evidence
        progress()

    started, failure, threads = time.perf_counter(), None, torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny: more threads only wait for each other
    try:
        holds()
    except AssertionError as error:
        failure = str(error)
    except Flaky:
        failure = f"one case holds at one time and not at another: {found}"
    finally:
        torch.set_num_threads(threads)
    if failure is None and large > done:
        failure = (
            f"{large} of {done + large} cases had too many outcomes to enumerate, so that too "
            "little is known: give the strategy smaller options (fewer levels, fewer children)"
        )
    seconds = time.perf_counter() - started
    return Verdict(prop.name, failure, done, large, largest, seconds, prop.unit, prop.lossy)
