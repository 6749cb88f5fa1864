"""What ``specdec bench paper`` compares: every strategy that fits, the published trees, and the
ablations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from specdec.cli.compared_engines import choose_labelled, labels_of
from specdec.cli.options_by_label import named, options_by_label, strategy_of
from specdec.cli.strategy_choice import PLAIN, StrategyChoice
from specdec.errors import OptionError, SpecdecError

if TYPE_CHECKING:
    from specdec.engine import Engine
    from specdec.plugin.registry import Registry

# EAGLE-2 (arXiv 2406.16858), section 5: the tree for models of 7 and 8 billion parameters.
PUBLISHED = {"depth": 6, "top_k": 10, "budget": 60}
_WITH_PUBLISHED_TREE = ("eagle2", "eagle3")
_AUTO = "auto"
_TREE_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "confidence": {"score": "confidence"},
    "unranked": {"rerank": False},
    "neither": {"score": "confidence", "rerank": False},
    "coupled60": {"coupled": True},
    **{f"budget{value}": {"budget": value} for value in (10, 25, 40, 80)},
    **{f"depth{value}": {"depth": value} for value in (2, 4, 8)},
    **{f"k{value}": {"top_k": value} for value in (2, 5, 20)},
}
_AUTO_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "uncalibrated": {"calibrated": False},
    "uncoupled": {"coupled": False},
    "nolookup": {"prompt_lookup": False},
    "nocosts": {"size_by_cost": False},
}


@dataclass(frozen=True)
class _PolicyOptions:
    """Options of the policy of one label.

    Attributes:
        defaults: the user may set others.
        fixed: the label stands for these; the user may not set others.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperEngines:
    """The engines that are compared.

    Attributes:
        engines: by label, on one loaded model.
        ablations: the labels that belong to the ablations alone.
        left_out: the labels that could not be made, and why.
    """

    engines: Mapping[str, Engine]
    ablations: Sequence[str]
    left_out: Mapping[str, str]


def make_paper_engines(
    registry: Registry,
    loading: Mapping[str, Any],
    given: str | None,
    options: Mapping[str, Any],
    *,
    ablations: bool,
) -> PaperEngines:
    """Load the model and make the engines.

    Args:
        loading: arguments of ``Engine`` that hold for all.
        given: labels with commas; every complete strategy if None, of which those that cannot be
            made are left out.
        options: as for ``options_by_label``. A strategy that one of them keeps from being made is
            not left out, and neither is one that an option names.

    Raises:
        SpecdecError: whatever is wrong with what was asked for.
    """
    from specdec.engine import Engine

    names = registry.complete() if given is None else labels_of(registry, given)
    names = [name for name in names if name != PLAIN]
    plain = Engine(**loading, strategy=PLAIN)
    own_trees = _with_own_tree(registry, loading, on_cpu=plain.target.device.type == "cpu")
    compared = dict(each for name in names for each in _compared(name, own_trees))
    extra = dict(_ablations(names)) if ablations else {}
    if ablations and not extra:
        raise OptionError(
            "--ablations need one of the strategies "
            f"{', '.join((*_WITH_PUBLISHED_TREE, _AUTO))}, not "
            f"{', '.join(names)}"
        )
    policies = {**compared, **extra}
    labels = list(policies)
    _check_fixed(policies, options)
    own = options_by_label(registry, labels, options)
    chosen = choose_labelled(registry, labels, own)
    wanted = set(map(strategy_of, labels)) if given is not None else named(labels, own)
    engines: dict[str, Engine] = {}
    left_out: dict[str, str] = {}
    for label, choice in chosen.items():  # a strategy before its variants
        if strategy_of(label) in left_out:
            continue
        full = _with_policy(choice, policies[label])
        try:
            engines[label] = plain.with_strategy(**full.arguments())
        except SpecdecError as error:
            own_fault = strategy_of(label) in wanted or _can_be_made_without(plain, choice)
            if own_fault and label not in extra:
                raise
            left_out[label] = str(error)
    if not engines:
        engines[PLAIN] = plain
    return PaperEngines(engines, [label for label in extra if label in engines], left_out)


def _check_fixed(policies: Mapping[str, _PolicyOptions], options: Mapping[str, Any]) -> None:
    for label, policy in policies.items():
        for name, value in policy.fixed.items():
            if (key := f"{label}.policy.{name}") in options:
                raise OptionError(
                    f"-o {key}={options[key]}: {label} is what it is by {name}={value}; a "
                    f"variant of your own is --strategies {strategy_of(label)}:NAME"
                )


def _can_be_made_without(plain: Engine, choice: StrategyChoice) -> bool:
    """Whether it is the user's options that keep the strategy from being made."""
    bare = StrategyChoice(choice.strategy)
    if choice == bare:
        return False
    try:
        plain.with_strategy(**bare.arguments())
    except SpecdecError:
        return False
    return True


def _with_own_tree(registry: Registry, loading: Mapping[str, Any], *, on_cpu: bool) -> set[str]:
    """The strategies for whose tree the model's alias has options of its own."""
    from specdec.plugin.loading import find_alias

    alias = find_alias(registry, loading["model"])
    if alias is None:
        return set()
    names = {*alias.options, *alias.cpu_options}
    return {name for name in names if alias.fitting(name, on_cpu=on_cpu).get("policy")}


def _compared(name: str, own_trees: set[str]) -> Iterator[tuple[str, _PolicyOptions]]:
    """A strategy; where the model has a tree of its own for it, the published one is a variant."""
    if name not in _WITH_PUBLISHED_TREE:
        yield name, _PolicyOptions()
    elif name in own_trees:
        yield name, _PolicyOptions()
        yield f"{name}:published", _PolicyOptions(fixed=PUBLISHED)
    else:
        yield name, _PolicyOptions(defaults=PUBLISHED)


def _ablations(names: Sequence[str]) -> Iterator[tuple[str, _PolicyOptions]]:
    """Of the first strategy with the published tree, and of auto."""
    for name in [each for each in _WITH_PUBLISHED_TREE if each in names][:1]:
        for variant, change in _TREE_CHANGES.items():
            yield f"{name}:{variant}", _PolicyOptions(fixed={**PUBLISHED, **change})
    if _AUTO in names:
        for variant, change in _AUTO_CHANGES.items():
            yield f"{_AUTO}:{variant}", _PolicyOptions(fixed=change)


def _with_policy(choice: StrategyChoice, policy: _PolicyOptions) -> StrategyChoice:
    """The user's options in place of the defaults, and the fixed ones in place of both."""
    options = {**policy.defaults, **choice.options.get("policy", {}), **policy.fixed}
    if not options:
        return choice
    return replace(choice, options={**choice.options, "policy": options})
