"""JSON objects in files that people write."""

from __future__ import annotations

from collections import Counter
from typing import Any


class RepeatedNameError(ValueError):
    """An object that has a name twice: JSON does not say which value counts."""


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some names and values; ``object_pairs_hook`` of :func:`json.loads`.

    Raises:
        RepeatedNameError: a name that comes twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise RepeatedNameError(f"{name!r} is there twice: give it once")
    return found
