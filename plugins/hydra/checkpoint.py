"""Checkpoints of Hydra heads: Hydra's and Hydra++'s layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.heads.checkpoint import HeadsCheckpoint, usual_shape
from specdec.models.heads.depth_heads import Projection
from specdec.models.heads.fields import Count, Size, checked_fields
from specdec.models.heads.kind import HeadsKind
from specdec.models.heads.token_map import take_token_map
from specdec.models.heads.unknown_entries import refuse_unknown
from specdec_plugins.hydra.heads import HydraHeads, HydraSizes
from specdec_plugins.hydra.prefix_layer import PrefixSizes

# What the authors' trainer saves beside the heads: the target's own embedding, and what the prefix
# layer never uses, since it is given hidden states, not tokens.
_UNUSED = re.compile(
    r"^(input_embed_fn\.weight|prefix_embeding_layer\.(embed_tokens\.weight|.*rotary_emb\.inv_freq))$"
)
_MLP = re.compile(r"^(hydra_mlp\.\d+)\.(\d+)\.")
_PROJECTION = re.compile(r"^(hydra_lm_head\.\d+)\.")
_HINTS = {
    "grounded_heads": "heads that do not read the draft tokens are Medusa's",
    "hydra_head_arch": "specdec reads 'mlp' (Hydra) and 'prefix-mlp' (Hydra++)",
    "hidden_state_offset": "specdec hands over the last hidden state alone",
}


class HydraFields(BaseModel):
    """Of ``config.json``: the authors' fields, then specdec's own, for what they cannot say."""

    model_config = ConfigDict(frozen=True, strict=True)

    hydra_num_heads: Count = 4
    hydra_num_layers: Count = 1
    hydra_head_arch: Literal["mlp", "prefix-mlp"] = "mlp"
    grounded_heads: Literal[True]
    hidden_state_offset: Literal[0] = 0
    projection: Projection = "own"
    hidden_size: Size | None = None
    vocab_size: Size | None = None
    truncated_vocab_size: Size | None = None
    prefix: PrefixSizes | None = None


class HydraKind(HeadsKind[HydraHeads]):
    """Hydra and Hydra++ heads.

    ``hydra_lm_head.pt`` or ``.safetensors``. Hydra's keys are ``hydra_mlp.{head}.{block}.*`` and
    ``hydra_lm_head.{head}.*``; in Hydra++'s dropout layers count too, so that blocks are 1, 3, 5
    and projections ``hydra_lm_head.{head}.1.*``, and the prefix layer is a whole model of one
    layer, ``prefix_embeding_layer.*``, whose embeddings are not used. Nor is the target's
    embedding, ``input_embed_fn.weight``, which the authors' trainer saves with either.

    Saved are the same. A projection for each head over all tokens is the published layout; other
    projections, a draft vocabulary and the sizes of the prefix layer are said beside it.
    """

    name = "Hydra heads"
    network = HydraHeads
    files = ("hydra_lm_head.safetensors", "hydra_lm_head.pt")
    within = re.compile(r"^hydra_head\.")
    unlike = (
        "its config.json has no hydra_num_heads. EAGLE heads go with strategy='eagle2', Medusa's "
        "with 'medusa'"
    )

    def matches_config(self, fields: Mapping[str, Any]) -> bool:
        return any(name in fields for name in ("hydra_num_heads", "hydra_num_layers"))

    def parse_checkpoint(
        self, fields: Mapping[str, Any], weights: dict[str, Tensor]
    ) -> HeadsCheckpoint:
        own = checked_fields(HydraFields, fields, _HINTS)
        refuse_unknown(fields, {*HydraFields.model_fields, "base_model_name_or_path"})
        plus = own.hydra_head_arch == "prefix-mlp"
        checkpoint_key = _with_dropout if plus else str
        weights = {name: each for name, each in weights.items() if not _UNUSED.match(name)}
        vocab, hidden = _sizes(own, weights, checkpoint_key)
        missing = plus and own.prefix is None
        sizes = HydraSizes(
            hidden,
            vocab,
            own.hydra_num_heads,
            own.hydra_num_layers,
            own.projection,
            own.truncated_vocab_size or vocab,
            missing="the prefix layer has the sizes of the target's" if missing else "",
            prefix=own.prefix if plus else None,
        )
        vocabulary = take_token_map(weights, sizes, ("hydra_lm_head.",))
        layout = "hydra++" if plus else "hydra"
        return HeadsCheckpoint(layout, sizes, weights, checkpoint_key, vocabulary)

    def config(self, sizes: HydraSizes) -> tuple[dict[str, Any], Callable[[str], str]]:
        fields: dict[str, Any] = {
            "architectures": ["HydraModel"],
            "hydra_num_heads": sizes.heads,
            "hydra_num_layers": sizes.layers,
            "hydra_head_arch": "prefix-mlp" if sizes.prefix else "mlp",
            "grounded_heads": True,
            "hidden_state_offset": 0,
            "hidden_size": sizes.hidden_size,
            "vocab_size": sizes.vocab_size,
            "truncated_vocab_size": sizes.draft_vocab_size,
            "projection": sizes.projection,
        }
        if sizes.prefix is not None:
            fields["prefix"] = sizes.prefix.model_dump()
        return fields, _with_dropout if sizes.prefix else str


HEADS = HydraKind()


def _with_dropout(name: str) -> str:
    """The name where every layer has a dropout layer before it."""
    name = _MLP.sub(lambda found: f"{found[1]}.{2 * int(found[2]) + 1}.", name)
    return _PROJECTION.sub(r"\1.1.", name)


def _sizes(
    own: HydraFields, weights: Mapping[str, Tensor], checkpoint_key: Callable[[str], str]
) -> tuple[int, int]:
    """V and H, as the config says or, in the published layout, the projections."""
    if own.projection == "own" and own.vocab_size is None:
        heads = range(own.hydra_num_heads)
        names = [checkpoint_key(f"hydra_lm_head.{head}.weight") for head in heads]
        vocab, hidden = usual_shape(weights, names, "the projections [V, H]")
    elif own.vocab_size is None or own.hidden_size is None:
        raise CheckpointError("config.json lacks hidden_size or vocab_size")
    else:
        vocab, hidden = own.vocab_size, own.hidden_size
    if own.prefix is not None and own.prefix.hidden_size != hidden:
        raise CheckpointError(
            f"config.json has prefix.hidden_size={own.prefix.hidden_size}, and the heads read "
            f"{hidden} channels: a prefix layer keeps the size of what it reads"
        )
    return vocab, hidden
