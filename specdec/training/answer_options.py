"""How the target answers the prompts of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from specdec.errors import OptionError
from specdec.plugin.options import checked_options


class AnswerOptions(BaseModel):
    """How the target answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperatures: tuple[float, ...] = Field(
        (0.0, 1.0), min_length=1, description="that prompts are answered at, in turns"
    )
    new_tokens: int = Field(256, ge=1, description="tokens of an answer at most")
    most: int | None = Field(None, ge=1, description="answers at most; one a prompt if left out")
    longest_prompt: int = Field(1024, ge=1, description="tokens; longer prompts are left out")
    batch: int = Field(64, ge=1, description="prompts that are answered at a time, at most")
    max_batch_tokens: int = Field(
        50_000, ge=1, description="tokens of a batch, answers included: bounds its memory"
    )


def make_answer_options(given: Any) -> AnswerOptions:
    """Checked options.

    Args:
        given: a mapping of options, or True for the defaults.

    Raises:
        UnknownNameError: an option that does not exist.
        OptionError: a value that is not allowed.
    """
    if given is not True and not isinstance(given, Mapping):
        raise OptionError(
            f"regenerate={given!r:.80}: give True or False, or options of answers by name, such as "
            "{'new_tokens': 128}"
        )
    values = {} if given is True else given
    options = checked_options(AnswerOptions, values, "option of answers")
    if wrong := [each for each in options.temperatures if not 0 <= each < 100]:
        raise OptionError(
            f"temperatures: {wrong[0]} is not allowed: 0 is greedy, 1 the model's own"
        )
    return options
