"""What the flags of ``specdec bench`` and ``specdec bench paper`` say, as values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdec.cli.set_fields import set_fields
from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench import PromptSet


def parse_temperatures(given: str) -> list[float]:
    """The numbers in ``0,1``.

    Raises:
        OptionError: something else.
    """
    try:
        return [float(each) for each in given.split(",")]
    except ValueError:
        raise OptionError(
            f"--temperature {given}: give a number, or several with commas, such as 0,1"
        ) from None


def parse_batch_sizes(given: str) -> list[int]:
    """The numbers in ``1,2,4``.

    Raises:
        OptionError: something else.
    """
    try:
        return [int(each) for each in given.split(",")]
    except ValueError:
        raise OptionError(
            f"--batch-size {given}: give a whole number, or several with commas, such as 1,2,4"
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
