"""Loading EAGLE heads of any layout: a network with the tensors in it, or a refusal by name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.hf_target import HFTarget
from specdec.models.rotary import RotaryEmbedding
from specdec.models.tensor_loading import check_tensors, load_tensors
from specdec_plugins.eagle.description import HeadDescription
from specdec_plugins.eagle.draft_tokens import read_vocabulary
from specdec_plugins.eagle.eagle3_head import Eagle3Head, Eagle3Wiring
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.layouts import FAMILIES
from specdec_plugins.eagle.overrides import Overrides
from specdec_plugins.eagle.reading import HeadCheckpoint, read_head

Head = EagleHead | Eagle3Head
_VOCABULARY = ("d2t", "t2d")
# The parts of an EAGLE-3 head's network, and the canonical names of what is in them.
_PARTS = {"fc": "fusion", "fc_norm": "fusion", "input_norm": "fusion"}
_PARTS |= {"layers": "decoder", "norm": "decoder"}


def load_head(
    checkpoint: str | Path,
    target: HFTarget,
    *,
    aux_layers: Sequence[int] | None = None,
    norm_before_residual: bool | None = None,
    norm_output: bool | None = None,
    final_norm: bool | None = None,
    ignore: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
) -> Head:
    """Read a head from a folder or a hub id and check that it fits the target.

    Args:
        checkpoint: as for :func:`~specdec_plugins.eagle.reading.read_head`.
        aux_layers, norm_before_residual, norm_output, final_norm: what the checkpoint's tensors do
            not show, of an EAGLE-3 head; None as the checkpoint says.
        ignore: entries of ``config.json`` that it is read without.
        dtype: to read it in; the target's if None.

    Returns:
        The head on the target's device, in evaluation mode.

    Raises:
        CheckpointError: files missing, corrupt or unsafe; a checkpoint of another kind, which is
            named; a hidden size or vocabulary that is not the target's; missing or unexpected keys,
            or keys of the wrong shape or type, or with values that are no numbers or that ``dtype``
            does not have, each named.
    """
    overrides = Overrides(
        aux_layers=None if aux_layers is None else tuple(aux_layers),
        norm_before_residual=norm_before_residual,
        norm_output=norm_output,
        final_norm=final_norm,
        ignore=None if ignore is None else tuple(ignore),
    )
    found = read_head(checkpoint, overrides)
    try:
        check_fit(found.description, target)
        head = build(found, target, dtype)
    except CheckpointError as error:
        raise CheckpointError(f"the head in {found.folder}: {error}") from error
    head.made_for = found.description.made_for
    return head


def check_fit(head: HeadDescription | Head, target: HFTarget) -> None:
    """Refuse a head for another target.

    Raises:
        CheckpointError: another hidden size or vocabulary than the target's, hidden states of
            layers that it does not have, or embeddings of another width than the head reads.
    """
    aux: Sequence[int] | None = None
    if isinstance(head, HeadDescription):
        width, size, own = head.target_hidden_size, head.vocab_size, head.own_embedding
        hidden = head.hidden_size
        head.check_wiring()
        if head.family == "eagle3":
            aux = head.aux.indices(target.layers)
    else:
        hidden, size = head.config.hidden_size, head.config.vocab_size
        width, own = hidden, head.embed_tokens is not None
        if isinstance(head, Eagle3Head):
            width, aux = head.wiring.target_hidden_size, head.aux_layers
            _check_module(head, target)
    for name, given, wanted in (
        ("hidden_size", width, target.aux_hidden_size if aux else target.hidden_size),
        ("vocab_size", size, target.vocab_size),
    ):
        if given != wanted:
            raise CheckpointError(
                f"it is for a target of {name} {given}, the target model has {wanted}: a head "
                "works only with the model that it was trained for"
            )
    if not own:
        token = torch.zeros(1, 1, dtype=torch.int64, device=target.device)
        if (channels := target.embed(token).shape[-1]) != hidden:
            raise CheckpointError(
                f"it has no embed_tokens.weight and {hidden} channels, the target's embeddings "
                f"have {channels}: save the head's own embeddings with it"
            )


def _check_module(head: Eagle3Head, target: HFTarget) -> None:
    if head.aux_layers and max(head.aux_layers) > target.layers:
        raise CheckpointError(
            f"the head reads hidden states {list(head.aux_layers)}, the target model has "
            f"{target.layers} layers"
        )
    wiring, own = head.wiring, head.vocabulary
    if not wiring.fc and wiring.target_hidden_size != head.config.hidden_size:
        raise CheckpointError(
            f"it has no fc, and {head.config.hidden_size} channels where the target's states have "
            f"{wiring.target_hidden_size}"
        )
    inside = bool(((own >= 0) & (own < target.vocab_size)).all())
    if own.shape != (wiring.draft_vocab_size,) or not inside or (own.diff() <= 0).any():
        raise CheckpointError(
            f"its vocabulary must be {wiring.draft_vocab_size} tokens in ascending order, of the "
            f"target's 0 to {target.vocab_size - 1}"
        )


def build(found: HeadCheckpoint, target: HFTarget, dtype: torch.dtype | None = None) -> Head:
    """The network of a head, with the checkpoint's tensors in it.

    Raises:
        CheckpointError: as for :func:`load_head`.
    """
    head = _without_tensors(found.description, target.layers)
    weights, vocabulary = checked_tensors(found, found.description, head)
    if isinstance(head, Eagle3Head) and vocabulary is not None:
        head.vocabulary = vocabulary
    places = {name: module_name(head, name) for name in weights}
    own = {places[name]: each for name, each in weights.items()}
    keys = {place: found.names[name] for name, place in places.items()}
    load_tensors(head, own, keys, target.device, dtype or target.dtype)
    owner = head.decoder if isinstance(head, Eagle3Head) else head
    owner.rotary_emb = RotaryEmbedding(head.config)
    return head.to(target.device).eval()


def checked_tensors(
    found: HeadCheckpoint, description: HeadDescription, head: Head | None = None
) -> tuple[dict[str, Tensor], Tensor | None]:
    """A head's tensors under canonical names, and its draft vocabulary ``[D]`` if it is one of
    EAGLE-3.

    Args:
        head: the network that they belong to, as far as shapes go; made of the description if left
            out.

    Raises:
        CheckpointError: missing, unexpected or misshapen tensors, or values that are no numbers,
            each named.
    """
    head = head or _without_tensors(description, None)
    weights, vocabulary, names = _with_tied(found, description), None, found.names
    d2t, t2d = None, None
    if description.family == "eagle3":
        d2t, t2d = (weights.pop(name, None) for name in _VOCABULARY)
    expected = tensors_of(head)
    check_tensors(
        expected,
        weights,
        {name: names[name] for name in expected},
        f"an {FAMILIES[description.family]} head",
        [names[name] for name in weights.keys() - expected.keys()],
        _bias_hint(found, description),
    )
    if isinstance(head, Eagle3Head):
        sizes = description.draft_vocab_size, description.vocab_size
        if d2t is None and sizes[0] != sizes[1]:
            raise CheckpointError(f"missing keys: {names['d2t']}")
        vocabulary = read_vocabulary(d2t, t2d, *sizes)
    return weights, vocabulary


def _without_tensors(description: HeadDescription, layers: int | None) -> Head:
    """The network on the device ``meta``; without ``layers`` of a target some will do."""
    config = description.config()
    if layers is None and description.family == "eagle3":
        aux = () if description.aux.source == "features" else range(description.states)
        residual = bool(description.norm_before_residual)
        description = description.with_flags(aux_layers=aux, norm_before_residual=residual)
        layers = description.states
    with torch.device("meta"):
        if description.family == "eagle":
            bias = "fc" in description.biases
            return EagleHead(config, bias, description.own_embedding)
        return Eagle3Head(config, description.wiring(layers or 0))


def rewired(head: Eagle3Head, wiring: Eagle3Wiring) -> Eagle3Head:
    """The same tensors put together in another way, which needs the same ones."""
    config = copy.deepcopy(head.config)
    with torch.device("meta"):
        other = Eagle3Head(config, wiring)
    other.load_state_dict(head.state_dict(), strict=True, assign=True)
    other.decoder.rotary_emb = RotaryEmbedding(config).to(head.vocabulary.device)
    other.vocabulary = head.vocabulary
    return other.eval()


def module_name(head: Head, name: str) -> str:
    """Where in its network a tensor of that canonical name lies."""
    if isinstance(head, EagleHead):
        return name
    part = _PARTS.get(name.partition(".")[0])
    return f"{part}.{name}" if part else name


def tensors_of(head: Head) -> dict[str, Tensor]:
    """A head's tensors under their canonical names, detached, without its draft vocabulary."""
    if isinstance(head, EagleHead):
        return {name: tensor.detach() for name, tensor in head.state_dict().items()}
    parts = {f"{part}." for part in _PARTS.values()}
    return {
        next((name.removeprefix(part) for part in parts if name.startswith(part)), name): tensor
        for name, tensor in head.state_dict().items()
    }


def _with_tied(found: HeadCheckpoint, description: HeadDescription) -> dict[str, Tensor]:
    """The tensors, with the embeddings for an lm_head that is not there because it is tied."""
    weights = dict(found.weights)
    whole = description.draft_vocab_size == description.vocab_size
    tied = found.fields.get("tie_word_embeddings") and whole
    if description.family == "eagle3" and tied and "embed_tokens.weight" in weights:
        weights.setdefault("lm_head.weight", weights["embed_tokens.weight"])
    return weights


def _bias_hint(found: HeadCheckpoint, description: HeadDescription) -> str:
    bias = "fc" in description.biases
    if ("fc.bias" in found.weights) == bias:
        return ""
    name = "fusion_bias" if description.layout == "speculators" else "bias"
    return (
        f'. config.json says "{name}": {str(bias).lower()}, and fc.bias is '
        f"{'missing' if bias else 'there'}: take the entry out, and the tensors decide"
    )
