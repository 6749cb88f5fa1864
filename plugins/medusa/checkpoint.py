"""Checkpoints of Medusa heads: the authors' layout and vLLM's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.models.heads.checkpoint import HeadsCheckpoint, usual_shape
from specdec.models.heads.depth_heads import Projection
from specdec.models.heads.fields import Count, Size, checked_fields
from specdec.models.heads.kind import HeadsKind
from specdec.models.heads.token_map import take_token_map
from specdec.models.heads.unknown_entries import refuse_unknown
from specdec_plugins.medusa.heads import MedusaHeads, MedusaSizes

_OF_AUTHORS = ("medusa_num_heads", "medusa_num_layers")
# What the tools write besides: of the target, of how vLLM runs the heads.
_IDLE = {"base_model_name_or_path", "version"}
_IDLE_OF_VLLM = {"max_paths", "max_seq_len", "num_lookahead_tokens", "topk"}
_NUMBERED = re.compile(r"^(\d+)\.(\d+)\.(linear\.)?(weight|bias)$")
_BLOCK = re.compile(r"^blocks\.(\d+)\.layers\.(\d+)\.")
_PROJECTION = re.compile(r"^lm_heads\.(\d+)\.")
_MOST = 64


class _MedusaFields(BaseModel):
    """Of the authors' ``config.json``."""

    model_config = ConfigDict(frozen=True, strict=True)

    medusa_num_heads: Count = 5
    medusa_num_layers: int = Field(1, ge=0, le=_MOST)


class _VllmFields(BaseModel):
    """Of vLLM's; ``lm_head_of_target`` is specdec's own: the heads bring no projection."""

    model_config = ConfigDict(frozen=True, strict=True)

    hidden_size: Size
    vocab_size: Size
    num_heads: Count = 5
    num_hidden_layers: int = Field(1, ge=0, le=_MOST)
    truncated_vocab_size: Size | None = None
    original_lm_head: bool = False
    medusa_fc_bias: bool = False
    logit_scale: float = Field(1.0, ge=1, le=1)
    lm_head_of_target: bool = False


class MedusaKind(HeadsKind[MedusaHeads]):
    """Medusa heads.

    The authors' layout: ``medusa_lm_head.pt`` or ``.safetensors``, keys
    ``{head}.{block}.linear.weight`` and ``{head}.{blocks}.weight``. Published configs of it name
    fewer heads than there are, so the tensors decide where they are more. vLLM's:
    ``model.safetensors``, keys ``blocks.{head}.layers.{block}.weight``, ``lm_heads.{head}.weight``
    or ``lm_head.weight`` for all, and for a draft vocabulary ``token_map``.

    Saved are vLLM's, which alone can say a draft vocabulary. Heads on the target's lm_head bring
    none, and say so (``lm_head_of_target``): vLLM needs a copy of its rows beside them, as
    ``lm_head.weight``.
    """

    name = "Medusa heads"
    network = MedusaHeads
    files = ("medusa_lm_head.safetensors", "medusa_lm_head.pt")
    within = re.compile(r"^medusa_heads?\.")
    unlike = (
        "its config.json has neither medusa_num_heads nor model_type 'medusa'. EAGLE heads go with "
        "strategy='eagle2'"
    )

    def matches_config(self, fields: Mapping[str, Any]) -> bool:
        return _authors_wrote(fields) or fields.get("model_type") == "medusa"

    def parse_checkpoint(
        self, fields: Mapping[str, Any], weights: dict[str, Tensor]
    ) -> HeadsCheckpoint:
        return (_authors if _authors_wrote(fields) else _vllm)(fields, weights)

    def config(self, sizes: MedusaSizes) -> tuple[dict[str, Any], Callable[[str], str]]:
        fields: dict[str, Any] = {
            "architectures": ["MedusaModel"],
            "model_type": "medusa",
            "hidden_size": sizes.hidden_size,
            "vocab_size": sizes.vocab_size,
            "truncated_vocab_size": sizes.draft_vocab_size,
            "num_heads": sizes.heads,
            "num_hidden_layers": sizes.layers,
            "medusa_fc_bias": sizes.bias,
            "original_lm_head": sizes.projection != "own",
        }
        if sizes.projection == "target":
            fields["lm_head_of_target"] = True
        return fields, _vllm_names(sizes)


HEADS = MedusaKind()


def _authors_wrote(fields: Mapping[str, Any]) -> bool:
    return any(name in fields for name in _OF_AUTHORS)


def _authors(fields: Mapping[str, Any], weights: dict[str, Tensor]) -> HeadsCheckpoint:
    own = checked_fields(_MedusaFields, fields)
    refuse_unknown(fields, {*_MedusaFields.model_fields, *_IDLE})
    layers = own.medusa_num_layers
    numbered = [int(match[1]) for name in weights if (match := _NUMBERED.match(name))]
    heads = min(max([own.medusa_num_heads, *(number + 1 for number in numbered)]), _MOST)
    vocab, hidden = usual_shape(
        weights,
        [f"{head}.{layers}.weight" for head in range(heads)],
        f"the projections [V, H] after medusa_num_layers={layers} residual blocks",
    )

    def checkpoint_key(name: str) -> str:
        return _PROJECTION.sub(rf"\1.{layers}.", _BLOCK.sub(r"\1.\2.linear.", name))

    sizes = MedusaSizes(hidden, vocab, heads, layers, "own", vocab)
    return HeadsCheckpoint("medusa", sizes, weights, checkpoint_key)


def _vllm(fields: Mapping[str, Any], weights: dict[str, Tensor]) -> HeadsCheckpoint:
    own = checked_fields(_VllmFields, fields)
    refuse_unknown(fields, {*_VllmFields.model_fields, *_IDLE_OF_VLLM})
    projection: Projection = "shared" if own.original_lm_head else "own"
    if own.lm_head_of_target:
        projection = "target"
    sizes = MedusaSizes(
        own.hidden_size,
        own.vocab_size,
        own.num_heads,
        own.num_hidden_layers,
        projection,
        own.truncated_vocab_size or own.vocab_size,
        bias=own.medusa_fc_bias,
    )
    checkpoint_key = _vllm_names(sizes)
    if "lm_heads.0.weight" in weights:  # which vLLM takes for the shared one as well
        weights.setdefault(checkpoint_key("lm_heads.0.weight"), weights.pop("lm_heads.0.weight"))
    vocabulary = take_token_map(weights, sizes, ("lm_heads.", "lm_head."))
    return HeadsCheckpoint("vllm", sizes, weights, checkpoint_key, vocabulary)


def _vllm_names(sizes: MedusaSizes) -> Callable[[str], str]:
    shared = {"lm_heads.0.weight": "lm_head.weight"} if sizes.projection == "shared" else {}
    return lambda name: shared.get(name, name)
