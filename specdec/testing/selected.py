"""Collected by ``pytest --specdec-strategy NAME``: the contract of the strategies named there."""

from __future__ import annotations

import pytest

from specdec.testing.contract import StrategyContract
from specdec.testing.subject import Subject


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One copy of the contract for each name."""
    if "strategy_name" in metafunc.fixturenames:
        names = metafunc.config.getoption("specdec_strategy")
        metafunc.parametrize("strategy_name", names, scope="class")


class TestContract(StrategyContract):
    """The contract of a strategy that was named on the command line."""

    @pytest.fixture(scope="class")
    @classmethod
    def subject(  # type: ignore[override]
        cls, strategy_name: str, pytestconfig: pytest.Config
    ) -> Subject:
        """The strategy on table models."""
        return Subject(strategy_name, drafter=pytestconfig.getoption("specdec_drafter"))
