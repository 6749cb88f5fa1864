"""What a user says of a head where its checkpoint may not, or may be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from specdec.errors import CheckpointError


class Overrides(BaseModel):
    """Flags of an EAGLE-3 head that its tensors do not show, None as the checkpoint says; and what
    in the config of any head is of no account."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    aux_layers: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="of an EAGLE-3 head: the hidden states that it reads, as transformers counts "
        "them; as the checkpoint says if not given",
    )
    norm_before_residual: bool | None = Field(
        default=None,
        description="of an EAGLE-3 head: whether its first layer adds to the normed state; as the "
        "checkpoint says if not given",
    )
    norm_output: bool | None = Field(
        default=None,
        description="of an EAGLE-3 head: whether the output that is fed back is normed; as the "
        "checkpoint says if not given",
    )
    final_norm: bool | None = Field(
        default=None,
        description="of an EAGLE-3 head: whether its lm_head reads the normed output; as the "
        "checkpoint says if not given",
    )

    ignore: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="entries of the head's config.json that it is read without, such as new_flag "
        "or eagle_config.new_flag",
    )

    def overrides(self) -> Overrides:
        """These alone, of options that have others too."""
        return Overrides(**{name: getattr(self, name) for name in Overrides.model_fields})

    def given(self) -> tuple[str, ...]:
        """The names of those that are given."""
        return tuple(name for name in Overrides.model_fields if getattr(self, name) is not None)

    def without_ignored(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """A ``config.json`` without the entries that are ignored.

        Raises:
            CheckpointError: an entry that it does not have.
        """
        for name in self.ignore or ():
            try:
                fields = _without(fields, name.split("."))
            except KeyError as error:
                raise CheckpointError(
                    f"the head's config.json has no {name}, which the option ignore names: leave "
                    "it out"
                ) from error
        return fields


def _without(fields: Any, path: Sequence[str]) -> Mapping[str, Any]:
    first, *rest = path
    if not isinstance(fields, Mapping) or first not in fields:
        raise KeyError(first)
    if rest:
        return {**fields, first: _without(fields[first], rest)}
    return {name: value for name, value in fields.items() if name != first}


AS_IT_SAYS = Overrides()


class CheckpointOptions(Overrides):
    """What ``specdec inspect`` and ``specdec convert`` take by ``--set``."""

    target: str | None = Field(
        default=None,
        min_length=1,
        description="folder or hub id of its target, which the layout speculators names",
    )
