"""Saving heads in the layouts that other tools read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen3Config

from specdec.errors import CheckpointError
from specdec_plugins.eagle.aux_layers import AuxLayers, usual_of
from specdec_plugins.eagle.checkpoint import Head, tensors_of
from specdec_plugins.eagle.description import SHARED, HeadDescription
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.named_target import NamedTarget
from specdec_plugins.eagle.writers import WRITERS, Written, eagle_fields

_OTHER_WEIGHTS = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.safetensors.index.json",
)
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


def save_head(
    head: Head,
    folder: Path,
    layout: str | None = None,
    *,
    target_layers: int | None = None,
    made_for: NamedTarget | None = None,
) -> str:
    """Write a head: ``config.json`` and ``model.safetensors``.

    Args:
        layout: ``official``, ``speculators``, ``specforge`` or ``sglang``; the first of these that
            can say what the head computes if not given.
        target_layers: decoder layers of the target: the official layout does not say which hidden
            states an EAGLE-3 head reads, and is not written without.
        made_for: the target, which the layout speculators names; vLLM asks for it.

    Returns:
        The layout.

    Raises:
        CheckpointError: a layout that cannot say what the head computes, or none that can.
    """
    description = replace(described(head), made_for=made_for)
    written = _written(description, head, layout, target_layers)
    save_files(written, folder)
    return written.layout


def check_can_be_saved(head: Head, target_layers: int) -> None:
    """Refuse a head that :func:`save_head` could not write in any layout.

    Raises:
        CheckpointError: what each layout cannot say of it.
    """
    _written(described(head), head, None, target_layers)


def _written(
    description: HeadDescription, head: Head, layout: str | None, target_layers: int | None
) -> Written:
    vocabulary = head.vocabulary if isinstance(head, Eagle3Head) else None
    return write(description, tensors_of(head), vocabulary, layout, target_layers)


def write(
    description: HeadDescription,
    tensors: dict[str, Tensor],
    vocabulary: Tensor | None,
    layout: str | None = None,
    target_layers: int | None = None,
) -> Written:
    """Config and tensors of a head in a layout.

    Args:
        tensors: under canonical names, without a draft vocabulary; they are not copied.
        vocabulary: ``[D]`` int64, of an EAGLE-3 head.
        layout, target_layers: as for :func:`save_head`.

    Raises:
        CheckpointError: a layout that does not exist or cannot say what the head computes; a head
            that is put together as none can be.
    """
    description.check_wiring()
    if layout is not None and layout not in WRITERS:
        raise CheckpointError(
            f"there is no layout {layout!r} to write: give one of {', '.join(WRITERS)}"
        )
    if description.family == "eagle" and layout is None:
        # There is no other layout: it is saved so whether or not the authors' code could read it.
        return Written("official", eagle_fields(description), tensors)
    ids, problems = description.aux.indices(target_layers), []
    usual = description.aux.source == "usual"
    if target_layers is not None and ids == usual_of(target_layers):
        usual = True
    for name in [layout] if layout else WRITERS:
        try:
            written = WRITERS[name](description, tensors, vocabulary)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if name != "official" or description.family == "eagle" or usual:
            return written
        problems.append(
            "the layout official does not say which hidden states a head reads: "
            + (
                "give the target model (--model), so that it is known whether these are its 2, "
                "n // 2, n - 3"
                if target_layers is None
                else f"{list(ids or ())} are not 2, n // 2, n - 3 of n = {target_layers} layers"
            )
        )
    raise CheckpointError("; ".join(problems))


def save_files(written: Written, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``.

    Raises:
        CheckpointError: a folder that cannot be made, or that holds other weights, which some tools
            would read instead.
    """
    from safetensors.torch import save_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made: {error.strerror or error}") from error
    if other := [name for name in _OTHER_WEIGHTS if (folder / name).exists()]:
        raise CheckpointError(
            f"{folder} has {other[0]}, which some tools would read instead of what is saved there "
            "now: give another folder, or remove it"
        )
    (folder / "config.json").write_text(json.dumps(written.fields, indent=2) + "\n")
    weights: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in written.weights.items():
        own = tensor.detach().cpu().contiguous()
        # Of tensors that share memory, as tied ones do, each is written whole.
        weights[name] = own.clone() if own.untyped_storage().data_ptr() in places else own
        places.add(own.untyped_storage().data_ptr())
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
        qk_norm=isinstance(config, Qwen3Config),
        states=wiring.states,
        aux=aux,
        **{name: getattr(wiring, name) for name in SHARED},
    )
