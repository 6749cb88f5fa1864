"""Reading a head's checkpoint: from files to a description and tensors of canonical names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.checkpoints import read_json, read_weights, resolve_checkpoint
from specdec.models.heads.fields import checked_fields
from specdec_plugins.eagle.config_fields import DecoderFields, HeadFields, check_agreement
from specdec_plugins.eagle.decoder_config import decoder_config
from specdec_plugins.eagle.description import HeadDescription
from specdec_plugins.eagle.eagle3_description import ATTENTION, as_eagle3
from specdec_plugins.eagle.flags import check_flags
from specdec_plugins.eagle.keys import Names, renamed
from specdec_plugins.eagle.kinds import other_kind
from specdec_plugins.eagle.layouts import Family, Layout, decoder_fields, recognise
from specdec_plugins.eagle.named_target import NamedTarget
from specdec_plugins.eagle.overrides import AS_IT_SAYS, Overrides


@dataclass(frozen=True)
class HeadCheckpoint:
    """A head as it lies in a folder.

    Attributes:
        folder: where.
        fields: of its ``config.json``.
        weights: its tensors under canonical names, as they are, on the CPU.
        names: what the checkpoint itself calls them.
        description: what it says of itself.
    """

    folder: Path
    fields: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    names: Names
    description: HeadDescription


def read_head(checkpoint: str | Path, overrides: Overrides = AS_IT_SAYS) -> HeadCheckpoint:
    """Read a head from a folder or a hub id; whether it fits a target is not looked at yet.

    Args:
        checkpoint: a folder with ``config.json`` and ``model.safetensors`` or
            ``pytorch_model.bin`` (read with ``weights_only``) or their shards, or a hub id.
        overrides: what to believe rather than the checkpoint.

    Raises:
        CheckpointError: files missing, corrupt or unsafe; a checkpoint of another kind, which is
            named; a config that lacks sizes or has flags that are not supported, each named;
            flags given of an EAGLE-1/2 head; an entry to ignore that is not there.
    """
    folder = resolve_checkpoint(checkpoint, what="EAGLE head")
    fields = overrides.without_ignored(read_json(folder / "config.json"))
    _refuse_other_kinds(folder, fields, {})
    weights = read_weights(folder)
    _refuse_other_kinds(folder, fields, weights)
    try:
        own = renamed(weights)
        description = _describe(fields, weights, own, overrides)
    except CheckpointError as error:
        raise CheckpointError(f"the head in {folder}: {error}") from error
    return HeadCheckpoint(folder, fields, own, Names(weights), description)


def _refuse_other_kinds(
    folder: Path, fields: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    if kind := other_kind(fields, weights):
        raise CheckpointError(f"the checkpoint in {folder} is {kind}")


def _describe(
    fields: Mapping[str, Any],
    written: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    overrides: Overrides,
) -> HeadDescription:
    own = checked_fields(HeadFields, fields)
    layout = recognise(fields, written)
    inner = decoder_fields(layout, fields)
    where = "" if layout != "speculators" else "transformer_layer_config."
    sizes = checked_fields(DecoderFields, inner, where=where)
    family = family_of(fields, sizes.hidden_size, weights)
    check_flags(layout, family, fields)
    decoder = decoder_config(sizes, inner, family, written)
    plain = HeadDescription(
        family=family,
        layout=layout,
        decoder=decoder,
        target_hidden_size=decoder["hidden_size"],
        draft_vocab_size=decoder["vocab_size"],
        own_embedding="embed_tokens.weight" in weights,
        made_for=NamedTarget.said_in(fields),
    )
    if family == "eagle3":
        return as_eagle3(plain, fields, inner, written, weights, overrides)
    if flags := [name for name in overrides.given() if name != "ignore"]:
        raise CheckpointError(
            f"it is one of EAGLE-1/2, which has no {', '.join(flags)}: leave it out"
        )
    widths = {"hidden_size": sizes.hidden_size, "target_hidden_size": own.target_hidden_size}
    check_agreement(widths)
    return replace(plain, biases=_biases(layout, own, sizes, weights))


def family_of(fields: Mapping[str, Any], hidden_size: int, weights: Mapping[str, Tensor]) -> Family:
    """By the tensors, and by the config where those that tell are missing.

    Args:
        weights: under their canonical names.
    """
    named = fields.get("speculators_model_type")
    if named is not None:
        return "eagle3" if named == "eagle3" else "eagle"
    query = weights.get("layers.0.self_attn.q_proj.weight")
    if any(name.endswith(".hidden_norm.weight") for name in weights):
        return "eagle3"
    if query is not None and query.dim() == 2 and query.shape[1] == 2 * hidden_size:
        return "eagle3"
    says = "eagle3" in str(fields.get("architectures")).lower()
    says = says or any(name in fields for name in ("draft_vocab_size", "eagle_config"))
    return "eagle3" if says or "d2t" in weights else "eagle"


def _biases(
    layout: Layout, own: HeadFields, sizes: DecoderFields, weights: Collection[str]
) -> frozenset[str]:
    """Linear layers with a bias, of an EAGLE-1/2 head: as the config says, else as the tensors
    show."""
    speculators = layout == "speculators"
    of_fc = own.fusion_bias if speculators else own.bias
    if of_fc is None:
        of_fc = "fc.bias" in weights
    of_attention = sizes.qkv_bias
    if of_attention is None and speculators:
        of_attention = sizes.attention_bias
    if of_attention is None:
        ends = tuple(f".{name}.bias" for name in ATTENTION)
        of_attention = any(name.endswith(ends) for name in weights)
    return frozenset((["fc"] if of_fc else []) + (list(ATTENTION) if of_attention else []))
