"""The options of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from specdec.plugin.options import checked_options

# What an answer has of its own.
OWN = (
    "index", "id", "text", "finish_reason", "prompt_tokens", "new_tokens", "token_ids", "error",
)  # fmt: skip


class JobOptions(BaseModel):
    """How rows are answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of Engine.generate, for every row that does not say otherwise",
    )
    seed: int = Field(0, description="of sampled rows that have no seed of their own")
    chat: bool = Field(
        False, description="take a prompt that is text as what the user says in a chat"
    )
    keep: tuple[str, ...] = Field(
        (), description="fields of a row that go into its answer as they are, settings or not"
    )
    token_ids: bool = Field(False, description="whether answers have the ids of the new tokens")
    batch_size: int = Field(32, ge=1, description="rows decoded at a time, at most")
    max_batch_tokens: int = Field(
        50_000, ge=1, description="tokens of a batch, answers included: bounds its memory"
    )
    window: int = Field(
        1024, ge=1, description="rows read at a time, and sorted by length among each other"
    )

    @field_validator("keep")
    @classmethod
    def _not_ours(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in OWN and name != "id":
                raise ValueError(f"an answer has a field {name!r} of its own")
        return names


def make_job_options(given: Mapping[str, Any]) -> JobOptions:
    """Checked options of a job.

    Raises:
        UnknownNameError: an option that does not exist.
        OptionError: a value that is not allowed.
    """
    return checked_options(JobOptions, given, "option of a job")
