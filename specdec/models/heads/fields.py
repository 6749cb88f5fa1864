"""Fields of the config.json of draft heads: checked, and refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from specdec.errors import CheckpointError

# A matrix of two such sizes can be described, whatever else is wrong with it, and named.
Size = Annotated[int, Field(ge=1, le=2**22)]
"""Channels of a hidden state, or tokens of a vocabulary."""

Count = Annotated[int, Field(ge=1, le=64)]
"""Heads, or layers of one."""

Fields = TypeVar("Fields", bound=BaseModel)


def checked_fields(
    kind: type[Fields],
    given: Mapping[str, Any],
    hints: Mapping[str, str] | None = None,
    where: str = "",
) -> Fields:
    """The fields of ``config.json`` that a kind of heads has; null is as if it were left out.

    Args:
        given: a JSON object; what it has beside is the kind's to refuse.
        hints: by field what to say of a value that is not allowed, where pydantic's message would
            not tell.
        where: the field of ``config.json`` that the object stands in, with a dot; empty for the
            top.

    Raises:
        CheckpointError: a value that is not allowed, with the field that has it, the innermost, or
            one that is needed and not there.
    """
    try:
        return kind.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        hint = (hints or {}).get(name, first["msg"].removeprefix("Value error, "))
        if not name:
            raise CheckpointError(f"config.json: {hint}") from error
        value = None if first["type"] == "missing" else first["input"]
        raise CheckpointError(f"config.json has {where}{name}={value!r}: {hint}") from error
