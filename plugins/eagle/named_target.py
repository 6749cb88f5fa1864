"""The target model that a head was made for, as its checkpoint names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdec.models.hf_target import HFTarget

_SNAPSHOTS = "snapshots"
_OF_THE_HUB = "models--"


@dataclass(frozen=True)
class NamedTarget:
    """A target by name; the layout of speculators has one (``verifier``), which vLLM serves.

    Attributes:
        name: folder or hub id.
        architectures: its classes in transformers; empty where they are not known.
    """

    name: str
    architectures: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: HFTarget) -> NamedTarget | None:
        """A loaded one by what it was loaded from; None where it came from nowhere."""
        config = target.model.config
        if not (source := config.name_or_path):
            return None
        return cls(_hub_id(source) or source, tuple(config.architectures or ()))

    @classmethod
    def said_in(cls, fields: Mapping[str, Any]) -> NamedTarget | None:
        """The one that a head's ``config.json`` names, None where it names none."""
        found: Any = fields
        for name in ("speculators_config", "verifier"):
            found = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping) or not isinstance(found.get("name_or_path"), str):
            return None
        classes = found.get("architectures")
        listed = classes if isinstance(classes, list) else []
        return (
            cls(found["name_or_path"], tuple(map(str, listed))) if found["name_or_path"] else None
        )


def another(said: NamedTarget | None, target: HFTarget) -> str:
    """What to say of a head that names another target than this one; empty where it names none, or
    where this one has no name.

    The owner's name is not compared, nor capitals: a folder seldom has the first.
    """
    own = NamedTarget.of(target)
    if said is None or own is None or _last(said.name) == _last(own.name):
        return ""
    return f"it names {said.name} as its target, and this model is {own.name}"


def _last(name: str) -> str:
    return Path(name).name.lower()


def _hub_id(source: str) -> str | None:
    """``org/model`` of a folder in the cache of the hub; None of any other."""
    parts = Path(source).parts
    if len(parts) < 3 or parts[-2] != _SNAPSHOTS or not parts[-3].startswith(_OF_THE_HUB):
        return None
    return parts[-3].removeprefix(_OF_THE_HUB).replace("--", "/")
