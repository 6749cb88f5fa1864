"""Options by name, of whatever has some: checked, and refused with their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from specdec.errors import OptionError, UnknownNameError

_Options = TypeVar("_Options", bound=BaseModel)


def checked_options(
    model: type[_Options], given: Mapping[str, Any], kind: str, *, prefix: str = "", owner: str = ""
) -> _Options:
    """Options of a pydantic model, from values by name.

    Args:
        kind: what a name names, for an error, e.g. ``"setting"``.
        prefix: what stands before a name in an error, e.g. ``"policy."``.
        owner: what has the options, for an error.

    Raises:
        UnknownNameError: an option that does not exist.
        OptionError: a value that is not allowed, with what the option means.
    """
    fields = model.model_fields
    for name in given:
        if name not in fields:
            raise UnknownNameError(kind, name, fields)
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = (prefix + ".".join(map(str, first["loc"]))).rstrip(".")
        field = fields.get(str(first["loc"][0])) if first["loc"] else None
        meaning = ": ".join(filter(None, (owner, field.description if field else "")))
        why = first["msg"].removeprefix("Value error, ")
        raise OptionError(
            f"{name}={_shown(first['input'])}: {why}" + (f" ({meaning})" if meaning else "")
        ) from error


def _shown(value: Any) -> str:
    """A value as an error message shows it: a whole network by its type."""
    text = repr(value)
    return text if len(text) <= 200 and "\n" not in text else f"<{type(value).__name__}>"
