"""Arguments that are True or False: anything else is refused, never tested by truth."""

from __future__ import annotations

from specdec.errors import OptionError


def check_bools(**given: object) -> None:
    """Refuse arguments that are neither True nor False: ``"no"`` and ``"false"`` count as true.

    Args:
        **given: values by the names of the arguments.

    Raises:
        OptionError: another value.
    """
    for name, value in given.items():
        if not isinstance(value, bool):
            raise OptionError(f"{name}={value!r:.80}: give True or False")
