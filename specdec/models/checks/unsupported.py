"""Unsupported architectures: attention that is no function of mask and positions."""

from __future__ import annotations

from transformers import PreTrainedModel

from specdec.errors import UnsupportedModelError


def refuse_untreeable(model: PreTrainedModel) -> None:
    """Refuse what no tree mask describes.

    Raises:
        UnsupportedModelError: alibi, chunked or linear attention, rope that changes with length.
    """
    config = model.config.get_text_config(decoder=True)
    kind = config.model_type
    reason = None
    if kind in ("bloom", "mpt") or getattr(config, "alibi", False):
        reason = "its alibi bias depends on cache slots, not on position ids"
    elif getattr(config, "attention_chunk_size", None):
        reason = "its attention is chunked"
    elif getattr(model, "_is_stateful", False):
        reason = "it keeps a recurrent state, which cannot branch"
    else:
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
        if changing := _rope_types(rope) & {"dynamic", "longrope"}:
            reason = f"its {changing.pop()} rope changes with the sequence length"
        elif model.get_output_embeddings() is None:
            reason = "it has no lm_head"
    if reason:
        raise UnsupportedModelError(
            f"a {kind} model cannot be verified as a tree: {reason}. Use a model with full or "
            "sliding-window attention and fixed rope or absolute positions; verifier='path' "
            "decodes this one, slowly"
        )


def _rope_types(rope: object) -> set[object]:
    """The types of rope in use; some configs have one for each type of layer."""
    if not isinstance(rope, dict):
        return set()
    found = {rope.get("rope_type") or rope.get("type")}
    return found.union(*(_rope_types(own) for own in rope.values()))
