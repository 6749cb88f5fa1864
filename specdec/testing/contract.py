"""The contract of a strategy as a test class: name the strategy, get every property."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from specdec.testing.cases import Subject
from specdec.testing.drafting import Provider
from specdec.testing.suite import FULL, PROPERTIES, Property, check


class StrategyContract:
    """Every property that keeps a strategy lossless, as pytest tests.

    Example:
        >>> class TestLookup(StrategyContract):
        ...     strategy = "lookup"

    Attributes:
        strategy: its name.
        options: options of its parts by role.
        plugins: plugin modules or objects to register besides the installed ones.
        drafter: another drafter by name (``"table"``), a checkpoint, or ``(table, folder)`` ->
            checkpoint, for a drafter that needs one made for the table model.
        policy, verifier, acceptor: names of other parts than the strategy's.
        examples: Hypothesis examples a property.
    """

    strategy: ClassVar[str]
    options: ClassVar[Mapping[str, Mapping[str, Any]] | None] = None
    plugins: ClassVar[Sequence[object]] = ()
    drafter: ClassVar[str | Provider | None] = None
    policy: ClassVar[str | None] = None
    verifier: ClassVar[str | None] = None
    acceptor: ClassVar[str | None] = None
    examples: ClassVar[int] = FULL

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls) -> Subject:
        """The strategy on table models."""
        return Subject(
            cls.strategy,
            options=cls.options,
            plugins=cls.plugins,
            drafter=cls.drafter,
            policy=cls.policy,
            verifier=cls.verifier,
            acceptor=cls.acceptor,
        )

    @pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.name)
    def test_property(
        self, prop: Property, subject: Subject, record_property: Callable[[str, object], None]
    ) -> None:
        """The property holds; the figures go into the test report."""
        if not prop.concerns(subject):
            pytest.skip(f"says nothing about {subject.strategy!r}")
        verdict = check(subject, prop, examples=self.examples)
        record_property("examples", verdict.examples)
        record_property("largest", verdict.largest)
        if verdict.failure is not None:
            pytest.fail(verdict.failure, pytrace=False)
