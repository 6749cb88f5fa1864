"""How many examples Hypothesis tries: few by default, many under ``pytest -m slow``."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def load_profile(many: bool) -> None:
    """What holds where a test says nothing else."""
    settings.register_profile(
        "many" if many else "few",
        deadline=None,
        max_examples=60 if many else 10,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("many" if many else "few")


def examples(few: int, many: int) -> settings:
    """Numbers of a test's own, as a decorator above ``@given``."""
    return settings(max_examples=many if settings.get_current_profile_name() == "many" else few)
