"""Options for a comparison: what is said of a strategy holds for its variants, and a drafter goes
to those that draft with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.plugin.components import Component
    from specdec.plugin.registry import Registry

_DRAFTER = "drafter"
_CHECKPOINT = "drafter.checkpoint"


def strategy_of(label: str) -> str:
    """``NAME`` of ``NAME:VARIANT``."""
    return label.partition(":")[0]


def named(labels: Sequence[str], options: Mapping[str, Any]) -> set[str]:
    """The strategies that an option names, itself or a variant of it."""
    strategies = {strategy_of(label) for label in labels}
    return {strategy_of(key.partition(".")[0]) for key in options} & strategies


def options_by_label(
    registry: Registry, labels: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options by label, as ``choose_labelled`` takes them.

    What is said of a variant comes before what is said of its strategy, and that before what is
    said of none, in whatever order it was written. A drafter that is given to none by name goes to
    the strategies that need a checkpoint: the name of a drafter to all of them, a checkpoint to
    those whose drafter recognises it, or, if no drafter does, to those whose drafter cannot tell.

    Raises:
        CheckpointError: a drafter that is neither a name, a folder nor an id on the hub.
        OptionError: a checkpoint that no strategy here drafts with.
    """
    of_all: dict[str, Any] = {}
    of_strategies: dict[str, Any] = {}
    of_variants: dict[str, Any] = {}
    for key, value in options.items():
        scope, dot, rest = key.partition(".")
        own = [label for label in labels if strategy_of(label) == scope]
        if dot and scope in labels and own:
            of_strategies |= {f"{label}.{rest}": value for label in own}
        elif dot and scope in labels:
            of_variants[key] = value
        else:
            of_all[key] = value
    specific = {**of_strategies, **of_variants}
    if (given := of_all.pop(_DRAFTER, None)) is not None:
        for label in _takers(registry, labels, str(given)):
            if not any(f"{label}.{key}" in specific for key in (_DRAFTER, _CHECKPOINT)):
                specific[f"{label}.{_DRAFTER}"] = given
    return {**of_all, **specific}


def _takers(registry: Registry, labels: Sequence[str], given: str) -> list[str]:
    """The labels that a drafter given to none by name is meant for."""
    drafters = {label: part for label in labels if (part := _needing(registry, label))}
    if given in registry.components["drafter"]:
        meant, told = {part.name for part in drafters.values()}, "they need no drafter"
    else:
        meant = _recognising(registry, given)
        told = (
            f"the drafters {', '.join(sorted(meant))} would" if meant else "it is of no known kind"
        )
        meant = meant or {part.name for part in drafters.values() if not part.recognises}
    takers = [label for label, part in drafters.items() if part.name in meant]
    if not takers:
        raise OptionError(
            f"-o drafter={given}: none of the strategies {', '.join(labels)} has a use for it "
            f"({told}): leave it out, or give it to one of them with -o {labels[0]}.drafter=..."
        )
    return takers


def _recognising(registry: Registry, checkpoint: str) -> set[str]:
    """The drafters that recognise a checkpoint."""
    from specdec.models.checkpoints import resolve_model

    place = resolve_model(checkpoint, what="drafter")
    if not place.is_dir():
        return set()
    parts = registry.components["drafter"].values()
    return {part.name for part in parts if part.recognises and part.recognises(place)}


def _needing(registry: Registry, label: str) -> Component | None:
    """The strategy's drafter, if it needs a checkpoint."""
    part = registry.part(registry.strategy(strategy_of(label)), "drafter")
    return part if part is not None and part.needs_checkpoint else None
