"""What a head's checkpoint says it is: family, layout, sizes, flags, auxiliary layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from transformers import LlamaConfig, Qwen3Config

from specdec.errors import CheckpointError
from specdec_plugins.eagle.aux_layers import ADVICE, AuxLayers
from specdec_plugins.eagle.eagle3_head import Eagle3Wiring
from specdec_plugins.eagle.layouts import Family, Layout
from specdec_plugins.eagle.named_target import NamedTarget

# What a description has under the names of the wiring; that numbers its layers by the target.
SHARED = [each.name for each in fields(Eagle3Wiring) if each.name != "aux_layers"]


@dataclass(frozen=True)
class HeadDescription:
    """A head, without its weights.

    Attributes:
        family: whose network it is.
        layout: how it is written.
        decoder: config of the decoder layers in transformers' names, the target's ``vocab_size``,
            windows and rope among them.
        qk_norm: whether queries and keys are normed.
        target_hidden_size: channels H of the target's hidden states.
        draft_vocab_size: rows D of its own lm_head; the target's V where it has none.
        states: how many hidden states of a token it reads.
        aux: which.
        norm_before_residual: None where the checkpoint ought to say and does not.
        ambiguous: flags that tensors do not show and that the checkpoint does not say for certain.
        made_for: its target, where the checkpoint names it.

    The others are as in :class:`~specdec_plugins.eagle.eagle3_head.Eagle3Wiring`.
    """

    family: Family
    layout: Layout
    decoder: Mapping[str, Any]
    target_hidden_size: int
    draft_vocab_size: int
    qk_norm: bool = False
    own_embedding: bool = False
    biases: frozenset[str] = frozenset()
    states: int = 1
    aux: AuxLayers = field(default_factory=lambda: AuxLayers((), "features"))
    fc: bool = True
    norm_before_fc: bool = False
    fc_norm: bool = False
    norm_before_residual: bool | None = False
    norm_output: bool = False
    final_norm: bool = True
    unused_norm: bool = False
    ambiguous: tuple[str, ...] = field(default=())
    made_for: NamedTarget | None = None

    @property
    def vocab_size(self) -> int:
        """Tokens V of the target."""
        size: int = self.decoder["vocab_size"]
        return size

    @property
    def hidden_size(self) -> int:
        """Channels h of the head."""
        size: int = self.decoder["hidden_size"]
        return size

    def with_flags(
        self,
        *,
        aux_layers: Sequence[int] | None = None,
        norm_before_residual: bool | None = None,
    ) -> HeadDescription:
        """The same with flags that have been settled; None leaves a flag as it is."""
        changed: dict[str, Any] = {}
        if aux_layers is not None:
            changed["aux"] = AuxLayers(tuple(aux_layers), "option")
        if norm_before_residual is not None:
            changed["norm_before_residual"] = norm_before_residual
        return replace(self, **changed)

    def check_wiring(self) -> None:
        """Refuse what no network is made of, whatever the target.

        Raises:
            CheckpointError: as many auxiliary layers as ``fc`` does not read, no ``fc`` where one
                is needed, norms that exclude each other.
        """
        aux = self.aux
        if self.family == "eagle":
            return
        if self.fc and aux.states != self.states:
            named = list(aux.given) if aux.given else "2, n // 2, n - 3"
            raise CheckpointError(
                f"the head names {aux.states} auxiliary layers {named} ({aux.in_words()}), "
                f"and fc.weight reads {self.states} states of {self.target_hidden_size} channels; "
                f"{ADVICE}"
            )
        if not self.fc and len(aux.given) > 1:
            raise CheckpointError(
                f"the head has no fc.weight and reads one state: {list(aux.given)} are more"
            )
        if not self.fc and self.hidden_size != self.target_hidden_size:
            raise CheckpointError(
                f"the head has no fc.weight (use_aux_hidden_state is false): its hidden_size "
                f"{self.hidden_size} must be that of the target, {self.target_hidden_size}"
            )
        if self.norm_before_fc and self.fc_norm:
            raise CheckpointError(
                "norm_before_fc (one norm over all states) and fc_norm (a norm for each) exclude "
                "each other: take out of config.json the one that the head was not trained with, "
                "and its tensors"
            )
        if self.norm_output and not self.final_norm:
            raise CheckpointError(
                "norm_output=True feeds the normed output back, and final_norm=False (or "
                "use_last_layernorm=False) says that the lm_head does not read it: give one of "
                "them as an option"
            )

    def config(self) -> LlamaConfig | Qwen3Config:
        """transformers' config of the decoder layers.

        Raises:
            CheckpointError: values that no such layers have.
        """
        given = {**self.decoder}
        types, window = given.pop("layer_types", None), given.pop("sliding_window", None)
        kind = Qwen3Config if self.qk_norm else LlamaConfig
        try:
            config = kind(**given, attention_bias=bool({"q_proj"} & self.biases))
        except Exception as error:
            raise CheckpointError(f"config.json is no head's config: {error}") from error
        if types:
            config.layer_types, config.sliding_window = types, window
        return config

    def wiring(self, layers: int) -> Eagle3Wiring:
        """How an EAGLE-3 head is put together for a target.

        Args:
            layers: decoder layers n of the target.

        Raises:
            CheckpointError: auxiliary layers that the target does not have, or a flag that the
                checkpoint does not say.
        """
        self.check_wiring()
        aux = self.aux.indices(layers) or ()
        if self.norm_before_residual is None:
            raise CheckpointError(
                "config.json does not say norm_before_residual, and tools take opposite defaults: "
                "give the option norm_before_residual (true for most heads that speculators "
                "trained), or ask who made the head"
            )
        return Eagle3Wiring(aux_layers=aux, **{name: getattr(self, name) for name in SHARED})
