"""What flags of ``specdec bench``, ``specdec bench paper`` and others say, as values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from specdec.cli.set_fields import set_fields
from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench import PromptSet

NumberT = TypeVar("NumberT", int, float)


def numbers(flag: str, given: str, kind: Callable[[str], NumberT], example: str) -> list[NumberT]:
    """The numbers that stand with commas between.

    Args:
        flag: by which they were given.
        kind: ``float``, or ``int`` for whole numbers.
        example: what could be given.

    Raises:
        OptionError: something else.
    """
    try:
        return [kind(each) for each in given.split(",")]
    except ValueError:
        number = "a whole number" if kind is int else "a number"
        raise OptionError(
            f"{flag} {given}: give {number}, or several with commas, such as {example}"
        ) from None


def bench_fields(given: Sequence[str] | None) -> dict[str, Any]:
    """The fields in the arguments of ``--set``.

    Raises:
        UnknownNameError, OptionError: what ``--set`` cannot give to a benchmark.
    """
    from specdec.bench.settings import REFUSED, SAID_BY

    said = {name: f"leave it to --{setting.replace('_', '-')}" for name, setting in SAID_BY.items()}
    return set_fields(
        given, {**said, **{name: f"{why}; leave it out" for name, why in REFUSED.items()}}
    )


def prompt_sets(data: Path | None, built_in: Sequence[PromptSet]) -> Sequence[PromptSet]:
    """Those of a path; ``built_in`` without one."""
    from specdec.bench import load_sets

    return built_in if data is None else load_sets(data)


def check_one_row(flag: str, wanted: bool, smallest: int) -> None:
    """What a flag adds decodes one row at a time.

    Args:
        smallest: of the batch sizes; of the larger ones it is left out.

    Raises:
        OptionError: it is wanted for larger batches alone.
    """
    if wanted and smallest > 1:
        raise OptionError(
            f"{flag} --batch-size {smallest}: what it adds decodes one row at a time; leave it "
            "out, or give batches of 1 too"
        )


def set_threads(count: int | None) -> None:
    """Of torch, if there is a number."""
    if count is not None:
        import torch

        torch.set_num_threads(count)
