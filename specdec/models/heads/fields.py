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
    kind: type[Fields], given: Mapping[str, Any], hints: Mapping[str, str] | None = None
) -> Fields:
    """The fields of ``config.json`` that a kind of heads has; null is as if it were left out.

    Args:
        hints: by field what to say of a value that is not allowed, where pydantic's message would
            not tell.

    Raises:
        CheckpointError: a value that is not allowed, with the field that has it, the innermost.
    """
    try:
        return kind.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        value = None if first["type"] == "missing" else first["input"]
        hint = (hints or {}).get(name, first["msg"].removeprefix("Value error, "))
        raise CheckpointError(f"config.json has {name}={value!r}: {hint}") from error
