"""Checkpoints of Medusa heads: both published layouts, read and refused by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.checkpoints import read_json, read_weights, resolve_checkpoint
from specdec.models.filling import check_tensors, fill
from specdec.models.heads.fields import Count, Size, checked_fields
from specdec.models.hf_target import HFTarget
from specdec_plugins.medusa.heads import HeadSizes, MedusaHeads, Projection

WHAT = "Medusa heads"
FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt", "model.safetensors")
_FILES = (*FILES, "pytorch_model.bin")
_PREFIX = re.compile(r"^medusa_heads?\.")
_NUMBERED = re.compile(r"^(\d+)\.(\d+)\.(linear\.)?(weight|bias)$")
_MOST = 64

Layout = Literal["medusa", "vllm"]


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


@dataclass(frozen=True)
class HeadsCheckpoint:
    """Medusa heads as they lie in a folder.

    Attributes:
        folder: where.
        layout: the authors' (``medusa``) or vLLM's.
        sizes: as config and tensors say.
        tensors: by the names of :class:`MedusaHeads`, on the CPU.
        written: what the checkpoint calls them, and would call those that are missing.
        vocabulary: ``[C]`` int64, ascending; None for all tokens.
    """

    folder: Path
    layout: Layout
    sizes: HeadSizes
    tensors: Mapping[str, Tensor]
    written: Mapping[str, str]
    vocabulary: Tensor | None

    def check(self) -> None:
        """Refuse tensors that are not those of the config.

        Raises:
            CheckpointError: missing, unexpected or misshapen tensors, or values that are no
                numbers, each named.
        """
        with torch.device("meta"):
            network = MedusaHeads(self.sizes)
        check_tensors(network, self.tensors, self.written, WHAT)


def is_medusa(fields: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is one of Medusa heads."""
    own = any(name in fields for name in ("medusa_num_heads", "medusa_num_layers"))
    return own or fields.get("model_type") == "medusa"


def read_heads(checkpoint: str | Path) -> HeadsCheckpoint:
    """Read heads from a folder or a hub id; whether they fit a target is not looked at yet.

    The authors' layout: ``medusa_lm_head.pt`` (read with ``weights_only``) or ``.safetensors``,
    keys ``{head}.{block}.linear.weight`` and ``{head}.{blocks}.weight``; the heads may lie within a
    whole model under ``medusa_head.``. Published configs of it name fewer heads than there are, so
    the tensors decide where they are more. vLLM's: ``model.safetensors``, keys
    ``blocks.{head}.layers.{block}.weight``, ``lm_heads.{head}.weight`` and, for a draft vocabulary,
    ``token_map``.

    Raises:
        CheckpointError: files missing, corrupt or unsafe; a checkpoint of another kind; values of
            the config that are not allowed.
    """
    folder = resolve_checkpoint(checkpoint, what=WHAT)
    fields = read_json(folder / "config.json")
    if not is_medusa(fields):
        raise CheckpointError(
            f"the checkpoint in {folder} is none of Medusa heads: its config.json has neither "
            "medusa_num_heads nor model_type 'medusa'. EAGLE heads go with strategy='eagle2'"
        )
    weights = read_weights(folder, _FILES)
    within = {name: each for name, each in weights.items() if _PREFIX.match(name)}
    weights = {_PREFIX.sub("", name): each for name, each in (within or weights).items()}
    try:
        if "medusa_num_heads" in fields or "medusa_num_layers" in fields:
            return _authors(folder, fields, weights)
        return _vllm(folder, fields, weights)
    except CheckpointError as error:
        raise CheckpointError(f"the Medusa heads in {folder}: {error}") from error


def load_heads(
    checkpoint: str | Path, target: HFTarget, dtype: torch.dtype | None = None
) -> MedusaHeads:
    """Read heads and check that they fit the target.

    Returns:
        The heads on the target's device, in evaluation mode.

    Raises:
        CheckpointError: as for :func:`read_heads`; another hidden size or vocabulary than the
            target's; tensors that are missing, unexpected, misshapen or no numbers, each named.
    """
    found = read_heads(checkpoint)
    try:
        check_fit(found.sizes, target)
        found.check()
        with torch.device("meta"):
            heads = MedusaHeads(found.sizes)
        fill(heads, found.tensors, found.written, target.device, dtype or target.dtype)
    except CheckpointError as error:
        raise CheckpointError(f"the Medusa heads in {found.folder}: {error}") from error
    if found.vocabulary is not None:
        heads.vocabulary = found.vocabulary.to(target.device)
    return heads.eval()


def check_fit(sizes: HeadSizes, target: HFTarget) -> None:
    """Refuse heads of another target.

    Raises:
        CheckpointError: another hidden size or vocabulary than the target's.
    """
    for name in ("hidden_size", "vocab_size"):
        given, wanted = getattr(sizes, name), getattr(target, name)
        if given != wanted:
            raise CheckpointError(
                f"they are for a target of {name} {given}, the target model has {wanted}: heads "
                "work only with the model that they were trained for"
            )


def _authors(
    folder: Path, fields: Mapping[str, Any], weights: dict[str, Tensor]
) -> HeadsCheckpoint:
    own = checked_fields(_MedusaFields, fields)
    layers = own.medusa_num_layers
    numbered = [int(match[1]) for name in weights if (match := _NUMBERED.match(name))]
    heads = min(max([own.medusa_num_heads, *(number + 1 for number in numbered)]), _MOST)
    written: dict[str, str] = {}
    for head in range(heads):
        written[f"lm_heads.{head}.weight"] = f"{head}.{layers}.weight"
        for layer in range(layers):
            for part in ("weight", "bias"):
                name = f"blocks.{head}.layers.{layer}.{part}"
                written[name] = f"{head}.{layer}.linear.{part}"
    back = {theirs: name for name, theirs in written.items()}
    tensors = {back.get(name, name): each for name, each in weights.items()}
    # The config says no sizes: they are those of most projections, so that an odd one is named.
    found = [tensors.get(f"lm_heads.{head}.weight") for head in range(heads)]
    shapes = Counter(tuple(each.shape) for each in found if each is not None and each.dim() == 2)
    if not shapes:
        raise CheckpointError(
            f"missing keys: {', '.join(f'{head}.{layers}.weight' for head in range(heads))}, the "
            f"projections [V, H] after medusa_num_layers={layers} residual blocks"
        )
    (vocab, hidden), _ = shapes.most_common(1)[0]
    sizes = HeadSizes(hidden, vocab, heads, layers, True, "own", vocab)
    return HeadsCheckpoint(folder, "medusa", sizes, tensors, written, None)


def _vllm(folder: Path, fields: Mapping[str, Any], weights: dict[str, Tensor]) -> HeadsCheckpoint:
    own = checked_fields(_VllmFields, fields)
    drafted = own.truncated_vocab_size or own.vocab_size
    projection: Projection = "shared" if own.original_lm_head else "own"
    if own.lm_head_of_target:
        projection = "target"
    sizes = HeadSizes(
        own.hidden_size,
        own.vocab_size,
        own.num_heads,
        own.num_hidden_layers,
        own.medusa_fc_bias,
        projection,
        drafted,
    )
    tensors = dict(weights)
    written = {"lm_heads.0.weight": "lm_head.weight"} if projection == "shared" else {}
    if projection == "shared" and "lm_head.weight" in tensors:
        tensors["lm_heads.0.weight"] = tensors.pop("lm_head.weight")
    vocabulary = None
    if drafted != own.vocab_size:
        vocabulary, order = _token_map(tensors.pop("token_map", None), sizes)
        for name, each in tensors.items():
            if name.startswith("lm_heads.") and each.dim() == 2:
                whole = each.shape[0] == own.vocab_size
                if whole or each.shape[0] == drafted:
                    tensors[name] = each[vocabulary] if whole else each[order]
    else:
        tensors.pop("token_map", None)  # of no effect there, as in vLLM
    return HeadsCheckpoint(folder, "vllm", sizes, tensors, written, vocabulary)


def _token_map(given: Tensor | None, sizes: HeadSizes) -> tuple[Tensor, Tensor]:
    """The drafted tokens ascending, and the row that each had: ``[C]`` int64 both."""
    if given is None:
        raise CheckpointError(
            f"missing keys: token_map, which truncated_vocab_size={sizes.draft_vocab_size} needs"
        )
    whole = not given.is_floating_point() and not given.is_complex() and given.dtype != torch.bool
    if tuple(given.shape) != (sizes.draft_vocab_size,) or not whole:
        raise CheckpointError(
            f"token_map is {str(given.dtype).removeprefix('torch.')} {list(given.shape)}: it must "
            f"hold {sizes.draft_vocab_size} token ids"
        )
    tokens, order = given.long().sort()
    if bool((tokens.diff() == 0).any()) or int(tokens[0]) < 0 or tokens[-1] >= sizes.vocab_size:
        raise CheckpointError(
            f"token_map must hold different tokens of 0 to {sizes.vocab_size - 1}"
        )
    return tokens, order
