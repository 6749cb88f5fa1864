"""Saving heads in the layouts that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen3Config

from specdec.errors import CheckpointError
from specdec_plugins.eagle.aux_layers import AuxLayers
from specdec_plugins.eagle.checkpoint import Head, tensors_of
from specdec_plugins.eagle.description import HeadDescription
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.writers import WRITERS, Written

_DECODER = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_hidden_layers",
    "head_dim",
    "rms_norm_eps",
    "hidden_act",
    "max_position_embeddings",
    "rope_parameters",
    "vocab_size",
)


def save_head(head: Head, folder: Path, layout: str | None = None) -> str:
    """Write a head: ``config.json`` and ``model.safetensors``.

    Args:
        layout: ``official``, ``speculators`` or ``specforge``; the first of these that can say what
            the head computes if not given.

    Returns:
        The layout.

    Raises:
        CheckpointError: a layout that cannot say what the head computes.
    """
    description = described(head)
    vocabulary = head.vocabulary if isinstance(head, Eagle3Head) else None
    written = write(description, tensors_of(head), vocabulary, layout)
    save_files(written, folder)
    return written.layout


def write(
    description: HeadDescription,
    tensors: dict[str, Tensor],
    vocabulary: Tensor | None,
    layout: str | None = None,
) -> Written:
    """Config and tensors of a head in a layout.

    Args:
        tensors: under canonical names, without a draft vocabulary; they are not copied.
        vocabulary: ``[D]`` int64, of an EAGLE-3 head.
        layout: as for :func:`save_head`.

    Raises:
        CheckpointError: a layout that does not exist or cannot say what the head computes.
    """
    if layout is not None and layout not in WRITERS:
        raise CheckpointError(
            f"there is no layout {layout!r} to write: give one of {', '.join(WRITERS)}"
        )
    problems = []
    for name in [layout] if layout else WRITERS:
        try:
            return WRITERS[name](description, tensors, vocabulary)
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError("; ".join(problems))


def save_files(written: Written, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(written.fields, indent=2) + "\n")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in written.weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def described(head: Head) -> HeadDescription:
    """What a loaded head is."""
    config = head.config
    decoder: dict[str, Any] = {name: getattr(config, name) for name in _DECODER}
    types = getattr(config, "layer_types", None)
    if types and "sliding_attention" in types:
        decoder |= {"layer_types": list(types), "sliding_window": config.sliding_window}
    own = head.embed_tokens is not None
    if isinstance(head, EagleHead):
        biases = {"q_proj", "k_proj", "v_proj"} if config.attention_bias else set()
        return HeadDescription(
            family="eagle",
            layout="official",
            decoder=decoder,
            target_hidden_size=config.hidden_size,
            draft_vocab_size=config.vocab_size,
            own_embedding=own,
            biases=frozenset(biases | ({"fc"} if head.fc.bias is not None else set())),
        )
    wiring = head.wiring
    aux = AuxLayers(wiring.aux_layers, "indices" if wiring.aux_layers else "features")
    return HeadDescription(
        family="eagle3",
        layout="speculators",
        decoder=decoder,
        target_hidden_size=wiring.target_hidden_size,
        draft_vocab_size=wiring.draft_vocab_size,
        qk_norm=isinstance(config, Qwen3Config),
        own_embedding=own,
        biases=wiring.biases,
        states=wiring.states,
        aux=aux,
        fc=wiring.fc,
        norm_before_fc=wiring.norm_before_fc,
        fc_norm=wiring.fc_norm,
        norm_before_residual=wiring.norm_before_residual,
        norm_output=wiring.norm_output,
        final_norm=wiring.final_norm,
        unused_norm=wiring.unused_norm,
    )
