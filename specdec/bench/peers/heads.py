"""What of the strategies the peers run too: an EAGLE-1/2 head, and trees as EAGLE-2 grows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.errors import OptionError
from specdec.models.checkpoints import resolve_checkpoint

if TYPE_CHECKING:
    from specdec.engine import Engine


def trees_of(engines: Mapping[str, Engine]) -> dict[str, dict[str, int]]:
    """By label the tree of each engine that grows it as EAGLE-2 does, with an EAGLE head."""
    found = {}
    for label, engine in engines.items():
        if _parts(engine) == ("eagle", "eagle2"):
            own = engine.selection.parsed["policy"].model_dump()
            if own["score"] == "value" and own["rerank"] and not own["coupled"]:
                found[label] = {name: own[name] for name in ("depth", "top_k", "budget")}
    return found


def head_of(engines: Mapping[str, Engine]) -> str | None:
    """The folder of the EAGLE-1/2 head that engines draft with as peers do, in trees as EAGLE-2's
    or in chains; None without any.

    Raises:
        OptionError: heads or options that peers do not run, or several heads.
    """
    heads: dict[str, str] = {}
    grown = trees_of(engines)
    for label, engine in engines.items():
        if label in grown or _parts(engine) == ("eagle", "chain"):
            heads[str(_folder(label, engine))] = label
    if len(heads) > 1:
        raise OptionError(
            f"--peers run one head, and {' and '.join(heads.values())} draft with different ones: "
            "compare them one after the other"
        )
    return next(iter(heads), None)


def _folder(label: str, engine: Engine) -> Path:
    """Of the head; refused is what would be another drafter in a peer."""
    checkpoint = engine.selection.checkpoint
    if not isinstance(checkpoint, (str, Path)):
        raise OptionError(f"--peers load the head themselves, and that of {label} is no folder")
    if engine.parts.drafter and engine.parts.drafter.needs.aux_layers:
        raise OptionError(
            f"--peers run EAGLE-1/2 heads, and {label} drafts with one of EAGLE-3 ({checkpoint}): "
            "leave that strategy out, or give it another head"
        )
    options = engine.selection.parsed["drafter"]
    own = options.model_dump(exclude_defaults=True, exclude={"checkpoint"})
    if own.get("dtype") == dtype_of(engine):
        del own["dtype"]
    if own:
        fields = type(options).model_fields
        needed = " ".join(f"-o drafter.{name}={_flag_value(fields[name].default)}" for name in own)
        raise OptionError(
            f"--peers run a head as it is, in the target's dtype, and {label} drafts with "
            f"{', '.join(f'{name}={value}' for name, value in own.items())}: add {needed}, with "
            "which all draft alike"
        )
    return resolve_checkpoint(checkpoint, what="drafter").resolve()


def _flag_value(value: object) -> str:
    """As ``-o`` reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def _parts(engine: Engine) -> tuple[str | None, str | None]:
    names = engine.selection.names
    return names["drafter"], names["policy"]


def dtype_of(engine: Engine) -> str:
    """The target's, by name."""
    return str(engine.target.dtype).removeprefix("torch.")
