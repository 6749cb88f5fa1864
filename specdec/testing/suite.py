"""The suite: which properties a strategy must have, and running them with Hypothesis."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from specdec.booleans import check_bools
from specdec.testing import properties
from specdec.testing.case_kinds import everywhere, small_models, step_distributions, whole_texts
from specdec.testing.case_strategies import cases
from specdec.testing.cases import Case
from specdec.testing.enumeration import EnumerationError
from specdec.testing.fake_clock import fake_clock
from specdec.testing.generator_statistics import generator_has_its_distributions
from specdec.testing.hypothesis_import import hypothesis
from specdec.testing.not_applicable import no_memory, no_models, no_reference, no_table, no_values
from specdec.testing.property import Property as Property
from specdec.testing.smallest_case import Failure, simplest
from specdec.testing.subject import FEW, MANY, Subject
from specdec.testing.verdict import Verdict as Verdict

QUICK, FULL = 40, 300
# Seconds in which a smaller case is looked for when one fails.
PATIENCE = 10.0

PROPERTIES = (
    Property(
        properties.exact_distribution,
        step_distributions(),
        share=3,
        unit="probability",
        distribution=True,
    ),
    Property(
        properties.whole_sequences, whole_texts, share=0.75, unit="probability", distribution=True
    ),
    Property(
        properties.neighbours_do_not_matter,
        step_distributions(rows=3, fewest=2, greedy=None),
        distribution=True,
    ),
    Property(properties.same_as_plain_for_any_noise, everywhere(noise=True), seed_exact=True),
    Property(properties.same_as_plain_for_any_seed, everywhere(), seed_exact=True),
    Property(
        properties.same_as_plain_on_real_models,
        small_models,
        share=0.5,
        distribution=True,
        without=no_models,
    ),
    Property(properties.stop_rules_hold, everywhere(), share=1.5),
    Property(properties.cache_is_a_fresh_prefill, everywhere()),
    Property(properties.trees_are_well_formed, everywhere(), unit="probability"),
    Property(properties.tree_is_the_reference, cases(), unit="log q", without=no_reference),
    Property(properties.values_are_products, cases(), share=0.5, unit="log q", without=no_values),
    Property(
        properties.draft_distribution_is_the_table,
        cases(),
        share=0.5,
        unit="probability",
        without=no_table,
    ),
    Property(properties.drafter_is_as_if_fresh, everywhere(), unit="log q", without=no_memory),
    Property(properties.options_round_trip, cases(), share=0.1),
    Property(properties.runs_repeat, everywhere()),
    Property(properties.only_keyed_randomness_is_used, cases(max_new=4), share=0.5),
    Property(generator_has_its_distributions, cases(), share=0, unit="sd"),
    Property(
        properties.measured_total_variation,
        step_distributions(),
        unit="total variation",
        lossy=True,
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

    A case with too many outcomes, which are fewer where examples are, is checked with fewer open
    distributions. The property fails as well if more than half of the cases are too large even so.

    Args:
        shrink: whether to look for a smaller case when one fails, for ``PATIENCE`` seconds.
        progress: called after every case.
    """
    check_bools(shrink=shrink)
    if subject.adaptive:
        prop = replace(prop, check=fake_clock()(prop.check))
    run = _Run(subject, prop, progress)
    subject.tokens = FEW if examples <= QUICK else MANY
    started, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny: more threads only wait for each other
    try:
        for kind, count in prop.kinds(subject, examples):
            if run.failure is None:
                run.look(kind, count)
        if run.failure is not None and run.told is None:
            found = simplest(run.failure, run.tried, PATIENCE) if shrink else run.failure
            run.told = str(found)
    finally:
        torch.set_num_threads(threads)
    seconds = time.perf_counter() - started
    return Verdict(
        prop.name,
        run.verdict(),
        run.done,
        run.large,
        run.largest,
        seconds,
        prop.unit,
        prop.lossy,
        run.narrowed,
    )


class _Enough(BaseException):
    """As many different cases as were asked for: Hypothesis, which would draw on, lets it pass."""


@dataclass
class _Run:
    """One property on many cases.

    Attributes:
        done: cases on which it held.
        large: cases that have too many outcomes.
        narrowed: cases that had too many before some of their distributions were closed.
        largest: the largest difference seen.
        failure: the first case on which it does not hold.
        told: what is to be said of it.
    """

    subject: Subject
    prop: Property
    progress: Callable[[], None]
    done: int = 0
    large: int = 0
    narrowed: int = 0
    largest: float = 0.0
    failure: Failure | None = None
    told: str | None = field(default=None)

    def look(self, kind: Any, count: int) -> None:
        """Check ``count`` different cases of a kind, or up to the first on which it fails."""
        seen: set[str] = set()

        @hypothesis.seed(0)  # the same cases whatever the lines below say
        @hypothesis.settings(
            max_examples=2 * count,  # Hypothesis draws some of them again
            derandomize=True,
            database=None,
            deadline=None,
            phases=(hypothesis.Phase.generate,),
            suppress_health_check=list(hypothesis.HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        )
        @hypothesis.given(kind)
        def holds(case: Case) -> None:
            if self.failure is None:
                if repr(case) in seen:
                    return
                seen.add(repr(case))
            failure = self.tried(case)
            self.progress()
            if failure is not None:
                self.failure = self.failure or failure
                raise AssertionError(str(failure))
            if self.failure is None and len(seen) == count:
                raise _Enough

        try:
            holds()
        except (AssertionError, _Enough):
            pass
        except hypothesis.errors.Flaky:
            self.told = f"one case holds at one time and not at another: {self.failure}"

    def tried(self, case: Case) -> Failure | None:
        """How the property fails on the case; None if it holds."""
        smaller: Case | None = case
        given = case
        while smaller is not None:
            case = smaller
            try:
                gap = self.prop.check(self.subject, case)
            except EnumerationError:
                smaller = case.quieter()
            except Exception as error:
                return Failure(case, type(error), str(error))
            else:
                if self.failure is None:  # what comes after is no further evidence
                    self.done, self.largest = self.done + 1, max(self.largest, gap)
                    self.narrowed += case is not given
                return None
        self.large += self.failure is None
        return None

    def verdict(self) -> str | None:
        """What is wrong; None if the property holds."""
        if self.told is None and self.large > self.done:
            return (
                f"{self.large} of {self.done + self.large} cases had too many outcomes to "
                "enumerate, so that too little is known: give the strategy smaller options (fewer "
                "levels, fewer children)"
            )
        return self.told
