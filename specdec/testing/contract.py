"""The contract of a strategy as a test class: name the strategy, get every property."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from specdec.testing.references import Reference
from specdec.testing.subject import Subject
from specdec.testing.suite import FULL, PROPERTIES, Property, check
from specdec.testing.support import Provider


class StrategyContract:
    """Every property that keeps a strategy lossless, as pytest tests.

    Example:
        >>> class TestMine(StrategyContract):
        ...     strategy = "mine"

    What the plugins say of their parts (:mod:`specdec.testing.support`) need not be said again.

    Attributes:
        strategy: its name.
        options: options of its parts by role.
        plugins: plugin modules or objects to register besides the installed ones.
        drafter: another drafter by name (``"table"``), a checkpoint that fits the table models, or
            ``(model, folder)`` -> checkpoint, for a drafter that needs one made for its target.
        policy, verifier, acceptor: names of other parts than the strategy's.
        reference: ``(options, levels, children)`` -> nodes, the tree policy in plain Python, which
            its trees are compared with; see :mod:`specdec.testing.references`.
        adaptive: whether drafts depend on how earlier drafts fared.
        examples: Hypothesis examples a property; ``--specdec-examples`` overrules it.
    """

    strategy: ClassVar[str]
    options: ClassVar[Mapping[str, Mapping[str, Any]] | None] = None
    plugins: ClassVar[Sequence[object]] = ()
    drafter: ClassVar[str | Provider | None] = None
    policy: ClassVar[str | None] = None
    verifier: ClassVar[str | None] = None
    acceptor: ClassVar[str | None] = None
    reference: ClassVar[Reference | None] = None
    adaptive: ClassVar[bool] = False
    examples: ClassVar[int] = FULL

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Refuse a contract that names no strategy once, where it is collected."""
        own = cls.__mro__[: cls.__mro__.index(StrategyContract)]
        ways = ("strategy", "make_subject", "subject")
        if not any(way in vars(kind) for kind in own for way in ways):
            raise pytest.Collector.CollectError(
                f'{cls.__name__} names no strategy: give the class strategy = "..."'
            )

    @classmethod
    def make_subject(cls) -> Subject:
        """The strategy with the parts and options of the class."""
        return Subject(
            cls.strategy,
            options=cls.options,
            plugins=cls.plugins,
            drafter=cls.drafter,
            policy=cls.policy,
            verifier=cls.verifier,
            acceptor=cls.acceptor,
            reference=cls.reference,
            adaptive=cls.adaptive,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls) -> Subject:
        """The strategy under test, made once."""
        return cls.make_subject()

    @pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.name)
    def test_property(
        self,
        prop: Property,
        subject: Subject,
        pytestconfig: pytest.Config,
        record_property: Callable[[str, object], None],
    ) -> None:
        """The property holds; the figures go into the test report."""
        if (why := prop.excuse(subject)) is not None:
            pytest.skip(f"says nothing about {subject.strategy!r}: {why}")
        examples = pytestconfig.getoption("specdec_examples", None) or self.examples
        verdict = check(subject, prop, examples=examples)
        record_property("examples", verdict.examples)
        record_property("too_large", verdict.too_large)
        record_property("largest", verdict.largest)
        record_property("unit", verdict.unit)
        if verdict.failure is not None:
            pytest.fail(verdict.failure, pytrace=False)
