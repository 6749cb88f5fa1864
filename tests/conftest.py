"""What runs by default, on how many examples; the fixtures are in shared_fixtures.py."""

from __future__ import annotations

import gc

import pytest

from examples import load_profile


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="DIR",
        help="folder with target/, head/ and golden.json, for tests/test_golden_traces.py",
    )


def pytest_configure(config: pytest.Config) -> None:
    load_profile(many=_slow(config))
    hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not hands_out:  # the process that hands tests to others (pytest -n) needs no torch
        config.pluginmanager.import_plugin("shared_fixtures")


def _slow(config: pytest.Config) -> bool:
    """Whether the slow tests are asked for, and they alone."""
    return bool(config.getoption("-m") == "slow")


def pytest_collection_finish() -> None:
    """What the imports made stays: the garbage collector need not walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless a marker expression asks for them.

    A property that Hypothesis tries on few examples is a slow test too, on many.
    """
    if _slow(config):
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.slow)
    if config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="slow: run with `pytest -m slow`")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
