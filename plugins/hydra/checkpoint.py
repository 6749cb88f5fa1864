"""Checkpoints of Hydra heads: Hydra's and Hydra++'s layout, read and refused by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.checkpoints import read_json, read_weights, resolve_checkpoint
from specdec.models.filling import check_tensors, fill
from specdec.models.heads.fields import Count, Size, checked_fields
from specdec.models.hf_target import HFTarget
from specdec_plugins.hydra.heads import HeadSizes, HydraHeads, Projection
from specdec_plugins.hydra.prefix_layer import PrefixSizes, sizes_of

WHAT = "Hydra heads"
FILES = ("hydra_lm_head.safetensors", "hydra_lm_head.pt", "model.safetensors", "pytorch_model.bin")
# What the authors' prefix layer keeps and never uses: it is given hidden states, not tokens.
_UNUSED = re.compile(r"^prefix_embeding_layer\.(embed_tokens\.weight|.*rotary_emb\.inv_freq)$")
_WITHIN = re.compile(r"^hydra_head\.")


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


@dataclass(frozen=True)
class HeadsCheckpoint:
    """Hydra heads as they lie in a folder.

    Attributes:
        folder: where.
        arch: ``mlp`` for Hydra, ``prefix-mlp`` for Hydra++.
        sizes: as config and tensors say; its ``prefix`` is None where only a target says it.
        tensors: by the names of :class:`HydraHeads`, on the CPU.
        written: what the checkpoint calls them, and would call those that are missing.
        vocabulary: ``[C]`` int64, ascending; None for all tokens.
    """

    folder: Path
    arch: str
    sizes: HeadSizes
    tensors: Mapping[str, Tensor]
    written: Mapping[str, str]
    vocabulary: Tensor | None

    def for_target(self, target: HFTarget) -> HeadsCheckpoint:
        """With the sizes of the prefix layer that the target has, where none are said."""
        if self.arch == "mlp" or self.sizes.prefix is not None:
            return self
        return replace(self, sizes=replace(self.sizes, prefix=sizes_of(target)))

    def check(self) -> None:
        """Refuse tensors that are not those of the config.

        Raises:
            CheckpointError: missing, unexpected or misshapen tensors, or values that are no
                numbers, each named.
        """
        with torch.device("meta"):
            network = HydraHeads(self.sizes)
        check_tensors(network, self.tensors, self.written, WHAT)


def is_hydra(fields: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is one of Hydra heads."""
    return any(name in fields for name in ("hydra_num_heads", "hydra_num_layers"))


def read_heads(checkpoint: str | Path) -> HeadsCheckpoint:
    """Read heads from a folder or a hub id; whether they fit a target is not looked at yet.

    ``hydra_lm_head.pt`` (read with ``weights_only``) or ``.safetensors``. Hydra's keys are
    ``hydra_mlp.{head}.{block}.*`` and ``hydra_lm_head.{head}.*``; in Hydra++'s dropout layers count
    too, so that blocks are 1, 3, 5 and projections ``hydra_lm_head.{head}.1.*``, and the prefix
    layer is a whole model of one layer, ``prefix_embeding_layer.*``, whose embeddings are not used.

    Raises:
        CheckpointError: files missing, corrupt or unsafe; a checkpoint of another kind; values of
            the config that are not allowed.
    """
    folder = resolve_checkpoint(checkpoint, what=WHAT)
    fields = read_json(folder / "config.json")
    if not is_hydra(fields):
        raise CheckpointError(
            f"the checkpoint in {folder} is none of Hydra heads: its config.json has no "
            "hydra_num_heads. EAGLE heads go with strategy='eagle2', Medusa's with 'medusa'"
        )
    weights = {_WITHIN.sub("", name): each for name, each in read_weights(folder, FILES).items()}
    try:
        return _described(folder, fields, weights)
    except CheckpointError as error:
        raise CheckpointError(f"the Hydra heads in {folder}: {error}") from error


def load_heads(
    checkpoint: str | Path, target: HFTarget, dtype: torch.dtype | None = None
) -> HydraHeads:
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
        found = found.for_target(target)
        found.check()
        with torch.device("meta"):
            heads = HydraHeads(found.sizes)
        fill(heads, found.tensors, found.written, target.device, dtype or target.dtype)
    except CheckpointError as error:
        raise CheckpointError(f"the Hydra heads in {found.folder}: {error}") from error
    if heads.prefix_embeding_layer is not None:
        heads.prefix_embeding_layer.set_rotary()
    if found.vocabulary is not None:
        heads.vocabulary = found.vocabulary.to(target.device)
    return heads.to(target.device).eval()


def check_fit(sizes: HeadSizes, target: HFTarget) -> None:
    """Refuse heads of another target.

    Raises:
        CheckpointError: another hidden size or vocabulary than the target's, or embeddings of
            another width than its hidden states.
    """
    for name in ("hidden_size", "vocab_size"):
        given, wanted = getattr(sizes, name), getattr(target, name)
        if given != wanted:
            raise CheckpointError(
                f"they are for a target of {name} {given}, the target model has {wanted}: heads "
                "work only with the model that they were trained for"
            )
    token = torch.zeros(1, dtype=torch.int64, device=target.device)
    if (width := target.embed(token).shape[-1]) != sizes.hidden_size:
        raise CheckpointError(
            f"they read embeddings of {sizes.hidden_size} channels, the target's have {width}"
        )


def _described(
    folder: Path, fields: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> HeadsCheckpoint:
    own = checked_fields(HydraFields, fields, _HINTS)
    plus = own.hydra_head_arch == "prefix-mlp"
    written: dict[str, str] = {}
    for head in range(own.hydra_num_heads):
        for layer in range(own.hydra_num_layers):
            place = 2 * layer + 1 if plus else layer
            for part in ("linear", "res_connection")[: 2 if layer == 0 else 1]:
                for kind in ("weight", "bias"):
                    name = f"hydra_mlp.{head}.{layer}.{part}.{kind}"
                    written[name] = f"hydra_mlp.{head}.{place}.{part}.{kind}"
        for kind in ("weight", "bias"):
            name = f"hydra_lm_head.{head}.{kind}"
            written[name] = f"hydra_lm_head.{head}.1.{kind}" if plus else name
    back = {theirs: name for name, theirs in written.items()}
    # A name of the other layout must not pass for one of this: it is surplus.
    tensors = {
        back.get(name, f"{name} " if name in written else name): each
        for name, each in weights.items()
        if not (plus and _UNUSED.match(name))
    }
    written |= {f"{name} ": name for name in written}
    if own.projection == "own" and own.vocab_size is None:
        vocab, hidden = _sizes(tensors, own, written)
    else:
        vocab, hidden = own.vocab_size or 0, own.hidden_size or 0
        if not vocab or not hidden:
            raise CheckpointError("config.json lacks hidden_size or vocab_size")
    if own.prefix is not None and own.prefix.hidden_size != hidden:
        raise CheckpointError(
            f"config.json has prefix.hidden_size={own.prefix.hidden_size}, and the heads read "
            f"{hidden} channels: a prefix layer keeps the size of what it reads"
        )
    drafted = own.truncated_vocab_size or vocab
    sizes = HeadSizes(
        hidden,
        vocab,
        own.hydra_num_heads,
        own.hydra_num_layers,
        own.projection,
        drafted,
        own.prefix if plus else None,
    )
    vocabulary = None
    if drafted != vocab:
        vocabulary = _token_map(tensors.pop("token_map", None), sizes)
    return HeadsCheckpoint(folder, own.hydra_head_arch, sizes, tensors, written, vocabulary)


def _sizes(
    tensors: Mapping[str, Tensor], own: HydraFields, written: Mapping[str, str]
) -> tuple[int, int]:
    """V and H of most projections, so that an odd one is named later."""
    names = [f"hydra_lm_head.{head}.weight" for head in range(own.hydra_num_heads)]
    found = [tensors.get(name) for name in names]
    shapes = Counter(tuple(each.shape) for each in found if each is not None and each.dim() == 2)
    if not shapes:
        raise CheckpointError(f"missing keys: {', '.join(written[name] for name in names)}")
    (vocab, hidden), _ = shapes.most_common(1)[0]
    return vocab, hidden


def _token_map(given: Tensor | None, sizes: HeadSizes) -> Tensor:
    """The drafted tokens: ``[C]`` int64, ascending."""
    if given is None:
        raise CheckpointError(
            f"missing keys: token_map, which truncated_vocab_size={sizes.draft_vocab_size} needs"
        )
    right = given.dtype == torch.int64 and tuple(given.shape) == (sizes.draft_vocab_size,)
    if not right or (given.diff() <= 0).any() or given[0] < 0 or given[-1] >= sizes.vocab_size:
        raise CheckpointError(
            f"token_map must hold {sizes.draft_vocab_size} tokens of 0 to {sizes.vocab_size - 1}, "
            "ascending, as int64"
        )
    return given


_HINTS = {
    "grounded_heads": "heads that do not read the draft tokens are Medusa's",
    "hydra_head_arch": "specdec reads 'mlp' (Hydra) and 'prefix-mlp' (Hydra++)",
    "hidden_state_offset": "specdec hands over the last hidden state alone",
}
