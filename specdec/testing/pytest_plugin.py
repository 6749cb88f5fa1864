"""The pytest plugin: ``pytest --specdec-strategy NAME``. It imports nothing heavy until then."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the equivalence suite."""
    group = parser.getgroup("specdec", "specdec: is a strategy lossless?")
    group.addoption(
        "--specdec-strategy",
        action="append",
        default=[],
        metavar="NAME",
        help="add the equivalence suite of an installed strategy; may be repeated",
    )
    group.addoption(
        "--specdec-drafter",
        default=None,
        metavar="NAME",
        help="let those strategies draft with this drafter; 'table' drafts from tables",
    )
    group.addoption(
        "--specdec-examples",
        type=_count,
        default=None,
        metavar="N",
        help="Hypothesis examples a property, of every strategy contract (default: its own number)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the suite beside whatever else is asked for; alone if nothing is."""
    names: list[str] = config.getoption("specdec_strategy")
    drafter: str | None = config.getoption("specdec_drafter")
    if not names:
        if drafter is not None:
            raise pytest.UsageError("--specdec-drafter needs --specdec-strategy NAME")
        return
    from specdec.errors import SpecdecError
    from specdec.plugin.registry import Registry

    try:
        registry = Registry.load()
        for name in names:
            registry.strategy(name)
            if drafter is not None:
                from specdec.testing.subject import Subject

                Subject(name, drafter=drafter)
    except SpecdecError as error:
        raise pytest.UsageError(str(error)) from error
    module = str(Path(__file__).with_name("selected.py"))
    asked = config.args_source is pytest.Config.ArgsSource.ARGS
    config.args[:] = [*config.args, module] if asked else [module]


def _count(given: str) -> int:
    """The value of ``--specdec-examples``."""
    if not given.isdecimal() or int(given) == 0:
        raise argparse.ArgumentTypeError(f"{given!r} is no number of examples: give 1 or more")
    return int(given)
