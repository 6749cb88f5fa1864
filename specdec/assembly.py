"""The parts of an engine: made for its target model, and checked to go together with it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from specdec.acceleration import Acceleration
from specdec.decoding.drafter_report import DrafterReport
from specdec.decoding.interfaces import Drafter
from specdec.decoding.parts import Parts
from specdec.drafter_check import TargetText, report_on
from specdec.errors import OptionError, PluginError
from specdec.models.checks.tree_attention import TreeCheck, check_lm_head
from specdec.models.hf_target import HFTarget
from specdec.models.loaded_model import explaining_model_errors
from specdec.models.placement import is_placed
from specdec.models.ranks import Ranks
from specdec.plugin.registry import Registry
from specdec.plugin.selection import Selection

_LOG = logging.getLogger(__name__)


@dataclass
class SharedModel:
    """A loaded model, and what was found out about it once for all engines on it.

    Attributes:
        name: of the model, for reports.
        model: whose weights and modules nobody else changes.
        acceleration: how it runs.
        check: of its forwards; None until a verifier with a cache needs it.
        text: of the target's own, which drafters are compared on.

    Raises:
        OptionError: an acceleration of a model whose weights are not in one place.
    """

    name: str
    model: PreTrainedModel
    acceleration: Acceleration
    check: TreeCheck | None = None
    text: TargetText = field(default_factory=TargetText)

    def __post_init__(self) -> None:
        if self.acceleration.changes and (Ranks.of(self.model) or is_placed(self.model)):
            raise OptionError(
                f"{self.acceleration} needs the weights in one place, and those of this model are "
                "sharded over several processes, or placed by a device_map: leave it out"
            )

    def check_forwards(self, target: HFTarget) -> None:
        """Check the forwards of a target on this model, unless those of another one have been.

        Raises:
            UnsupportedModelError: they are not the model's own.
        """
        if self.check is None:
            began = time.perf_counter()
            self.check = TreeCheck.at_load(target)
            _LOG.debug("the check at load took %.1f s", time.perf_counter() - began)
        target.skips_mask = self.check.skips_mask


@dataclass(frozen=True)
class Assembly:
    """A target and the parts that decode with it.

    Attributes:
        shared: the model below it.
        selection: what the parts are made from.
        target: as the parts see it; a plugin may have wrapped it.
        checked: the one whose forwards are checked: ``target``, or what a plugin has wrapped.
        parts: drafter, tree policy, verifier and acceptor.
    """

    shared: SharedModel
    selection: Selection
    target: HFTarget
    checked: HFTarget
    parts: Parts
    _reports: list[DrafterReport | None] = field(default_factory=list, init=False, repr=False)

    def drafter_report(self, tokenizer: PreTrainedTokenizerBase | None) -> DrafterReport | None:
        """How well the drafter predicts a few tokens of the target's own text, made once; None of
        one that does not say."""
        if not self._reports:
            cached, text = self.parts.verifier.uses_cache, self.shared.text
            made = report_on(self.parts.drafter, text, self.checked, tokenizer, uses_cache=cached)
            self._reports.append(made)
        return self._reports[0]

    def check_length(self, tokens: int) -> None:
        """A text is about to have this many tokens: what was not checked at load is checked now.

        Raises:
            UnsupportedModelError: from such a length on, decoding would differ from the model.
        """
        if self.shared.check is not None and self.parts.verifier.uses_cache:
            self.shared.check.check_length(self.checked, tokens)


def assemble(
    shared: SharedModel,
    registry: Registry,
    selection: Selection,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Assembly:
    """Make the parts and check that they and the target go together.

    Raises:
        CheckpointError: a drafter's checkpoint that does not fit the target.
        OptionError: parts that do not go together.
        PluginError: a target that a plugin wrapped so that it cannot be accelerated.
        UnsupportedModelError: a model whose forwards over a tree are not its own.
    """
    with explaining_model_errors(shared.model):
        own = HFTarget(shared.model, acceleration=shared.acceleration)
        check_lm_head(own)
    wrapped = registry.manager.hook.specdec_wrap_target(target=own)
    target: HFTarget = own if wrapped is None else _accelerated(wrapped, shared.acceleration)
    target.tokenizer = tokenizer
    parts = selection.make(registry, target)
    target.aux_layers = own.aux_layers = _aux_layers(parts.drafter, target)
    checked = target if isinstance(target, HFTarget) else own  # what decodes, where it can be
    _LOG.info(
        "%s on %s in %s, strategy %s: %s",
        *(shared.name, target.device, target.dtype, selection.strategy.name),
        ", ".join(f"{role} {name}" for role, name in selection.names.items() if name),
    )
    if parts.verifier.uses_cache:
        shared.check_forwards(checked)
    return Assembly(shared, selection, target, checked, parts)


def _accelerated(wrapped: HFTarget, asked: Acceleration) -> HFTarget:
    """A target that a plugin made, with the engine's acceleration where it has none.

    Raises:
        PluginError: it cannot have it.
    """
    own = getattr(wrapped, "acceleration", None)
    if own is asked or not asked.changes:
        return wrapped
    if not isinstance(wrapped, HFTarget) or (own and own.changes):
        raise PluginError(
            f"the target {type(wrapped).__name__} that a plugin returned from "
            f"specdec_wrap_target does not run with {asked}: subclass HFTarget and make it "
            "with acceleration=target.acceleration, or leave out the acceleration"
        )
    wrapped.accelerate(asked)
    return wrapped


def _aux_layers(drafter: Drafter | None, target: HFTarget) -> tuple[int, ...]:
    layers = drafter.needs.aux_layers if drafter else ()
    if any(not 0 <= layer <= target.layers for layer in layers):
        raise OptionError(
            f"the drafter reads hidden states of layers {list(layers)}, the target model has "
            f"layers 0 to {target.layers}"
        )
    return tuple(layers)
