"""Which strategies ``specdec bench`` compares: labels, their options, and engines for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from specdec.cli.strategy_choice import PLAIN, StrategyChoice, choose
from specdec.errors import OptionError, SpecdecError, UnknownNameError
from specdec.plugin import ROLES

if TYPE_CHECKING:
    from pathlib import Path

    from specdec.engine import Engine
    from specdec.plugin.registry import Registry

DEFAULT_STRATEGIES = "auto,eagle2,static_tree,chain"  # of specdec bench
_HEAD = "eagle"  # the drafter whose checkpoint is made to fit an inflated target


def labels_of(registry: Registry, given: str) -> list[str]:
    """The labels in ``A,B,C``; of the default ones those that are installed."""
    labels = [label.strip() for label in given.split(",")]
    complete = registry.complete()
    return [label for label in labels if given != DEFAULT_STRATEGIES or label in complete]


def choose_labelled(
    registry: Registry, labels: Sequence[str], given: Mapping[str, Any]
) -> dict[str, StrategyChoice]:
    """Check labels and options.

    Args:
        labels: ``NAME`` or ``NAME:VARIANT``, NAME being a strategy.
        given: by ``ROLE.OPTION`` the value of an option, or by ``ROLE`` the name of another part;
            for every label that it suits, or for one with ``LABEL.`` before it, which comes before
            the other wherever it stands.

    Raises:
        UnknownNameError: a strategy, part, role or option that does not exist.
        OptionError: a label that is not allowed, an option that nothing here takes.
    """
    for label in labels:
        name, colon, variant = label.partition(":")
        registry.strategy(name)
        if colon and not variant:
            raise OptionError(f"{label!r} has no variant behind the colon: write {name}:anything")
        if labels.count(label) > 1:
            raise OptionError(
                f"{label!r} is there twice: tell the two apart, {label} and {label}:other"
            )
    found = {label: StrategyChoice(label.partition(":")[0]) for label in labels}
    given = dict(sorted(given.items(), key=lambda pair: bool(_scope(pair[0]))))
    for key, value in given.items():
        scope, role = _split_part(key)
        if role:
            for label in _in_scope(registry, key, scope, labels):
                swaps = {**found[label].swaps, role: str(value)}
                found[label] = StrategyChoice(found[label].strategy, swaps, found[label].options)
    for key, value in given.items():
        if not _split_part(key)[1]:
            _set_option(registry, found, key, value)
    for choice in found.values():
        choose(registry, [choice.strategy], choice.swaps, {})  # says which parts there are
    return found


def _split_part(key: str) -> tuple[str, str | None]:
    """Scope and role of ``[LABEL.]ROLE``; no role for anything else."""
    scope, _, role = key.rpartition(".")
    return (scope, role) if role in ROLES else ("", None)


def _scope(key: str) -> str:
    """``LABEL`` of ``LABEL.ROLE`` and ``LABEL.ROLE.OPTION``; empty without one."""
    scope, role = _split_part(key)
    return scope if role else key.rpartition(".")[0].rpartition(".")[0]


def _in_scope(registry: Registry, key: str, scope: str, labels: Sequence[str]) -> list[str]:
    if not scope:
        return [label for label in labels if label != PLAIN]
    if scope not in labels:
        registry.strategy(scope.partition(":")[0])
        raise OptionError(f"-o {key!r}: {scope!r} does not run here, only {', '.join(labels)} do")
    return [scope]


def _set_option(registry: Registry, found: dict[str, StrategyChoice], key: str, value: Any) -> None:
    scope, role, option = ["", "", *key.rsplit(".", 2)][-3:]
    rest = f"{role}.{option}" if role else option
    labels = _in_scope(registry, key, scope, list(found))
    refused: list[SpecdecError] = []
    for label in labels:
        choice = found[label]
        try:
            (checked,) = choose(registry, [choice.strategy], choice.swaps, {rest: value})
        except SpecdecError as error:
            refused.append(error)
            continue
        for each, options in checked.options.items():
            choice.options.setdefault(each, {}).update(options)
    if labels and len(refused) == len(labels):
        raise refused[0]


def make_engines(
    registry: Registry,
    choices: Mapping[str, StrategyChoice],
    loading: Mapping[str, Any],
    preset: str | None,
    heads: Path,
) -> dict[str, Engine]:
    """An engine for every label, all on one loaded model.

    Args:
        loading: model, dtype, device, pack, compile and whatever else ``Engine`` takes for
            all of them.
        preset: name of a shape to inflate the model and its EAGLE heads to.
        heads: folder that the inflated heads are written to, which are checkpoints of the engines
            for as long as those are used.

    Raises:
        SpecdecError: whatever ``Engine`` refuses, an unknown preset, a model that cannot be
            inflated.
    """
    from specdec.engine import Engine

    if preset is not None:
        loading, choices = _inflated(registry, choices, loading, preset, heads)
    engines: dict[str, Engine] = {}
    first: Engine | None = None
    for label, choice in choices.items():
        arguments = choice.arguments()
        engine = first.with_strategy(**arguments) if first else Engine(**loading, **arguments)
        first = first or engine
        engines[label] = engine
    return engines


def _inflated(
    registry: Registry,
    choices: Mapping[str, StrategyChoice],
    loading: Mapping[str, Any],
    preset: str,
    folder: Path,
) -> tuple[dict[str, Any], dict[str, StrategyChoice]]:
    """The same with the large model; heads are written below ``folder``."""
    from specdec.bench.inflate import inflate, inflate_head
    from specdec.bench.presets import PRESETS
    from specdec.engine import Engine
    from specdec.plugin.loading import find_alias

    if (device_map := loading.get("device_map")) is not None:
        raise OptionError(
            f"--inflate {preset} --device-map {device_map}: an inflated model is made "
            "on one device; give --device, or leave out --inflate"
        )
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    shape = PRESETS[preset]
    accelerated = ("pack", "compile")
    own = {name: value for name, value in loading.items() if name not in accelerated}
    small = Engine(**own, strategy=PLAIN)
    alias = find_alias(registry, loading["model"])
    known = alias.drafters if alias else {}
    made: dict[str, StrategyChoice] = {}
    heads: dict[str, str] = {}
    for label, choice in choices.items():
        drafter, given = _drafter(registry, choice)
        checkpoint = given or known.get(drafter or "")
        if drafter == _HEAD and checkpoint:
            if checkpoint not in heads:
                into = folder / str(len(heads))
                heads[checkpoint] = str(
                    inflate_head(
                        checkpoint, small.target.config, shape, into, dtype=small.target.dtype
                    )
                )
            checkpoint = heads[checkpoint]
        made[label] = _with_checkpoint(choice, drafter, checkpoint)
    model = inflate(small.target.model, shape)
    rest = {name: value for name, value in loading.items() if name not in ("model", "dtype")}
    return {**rest, "model": model, "tokenizer": small.tokenizer}, made


def _drafter(registry: Registry, choice: StrategyChoice) -> tuple[str | None, str | None]:
    """Name of the drafter, and the checkpoint that was asked for."""
    name, swap = registry.strategy(choice.strategy).drafter, choice.swaps.get("drafter")
    checkpoint = choice.options.get("drafter", {}).get("checkpoint")
    if swap in registry.components["drafter"]:
        return swap, checkpoint
    return name, swap or checkpoint


def _with_checkpoint(
    choice: StrategyChoice, drafter: str | None, checkpoint: str | None
) -> StrategyChoice:
    if not checkpoint:
        return choice
    swaps = {**choice.swaps, "drafter": drafter}
    options = {role: dict(own) for role, own in choice.options.items()}
    options.setdefault("drafter", {})["checkpoint"] = checkpoint
    return StrategyChoice(choice.strategy, swaps, options)
