"""Draft vocabularies in checkpoints: the token that each row of a projection stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.heads.depth_heads import HeadSizes

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def whole_numbers(name: str, tensor: Tensor, size: int, what: str) -> Tensor:
    """A checkpoint's tensor ``[size]`` of whole numbers, as int64.

    Args:
        what: they are, for the message.

    Raises:
        CheckpointError: another shape or type.
    """
    if tuple(tensor.shape) != (size,) or tensor.dtype not in _WHOLE:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{name} is {kind} {list(tensor.shape)}: it must hold {size} whole numbers, {what}"
        )
    return tensor.long()


def take_token_map(
    weights: dict[str, Tensor], sizes: HeadSizes, projections: tuple[str, ...]
) -> Tensor | None:
    """Take ``token_map [C]`` out of a checkpoint, and put its projections in ascending order.

    It may have any order, as in vLLM, where most frequent tokens may come first; a projection of
    all V rows is cut to those that are drafted. Where all tokens are, it is of no effect.

    Args:
        weights: by the checkpoint's names; changed.
        projections: how names of projections begin; each row of theirs stands for a token.

    Returns:
        ``[C]`` int64, ascending; None for all tokens.

    Raises:
        CheckpointError: none although there are fewer tokens than the target has; another shape or
            type; no tokens of the target; a token twice.
    """
    given, drafted, size = weights.pop("token_map", None), sizes.draft_vocab_size, sizes.vocab_size
    if drafted == size:
        return None
    if given is None:
        raise CheckpointError(
            f"missing keys: token_map, which truncated_vocab_size={drafted} needs"
        )
    tokens, order = whole_numbers("token_map", given, drafted, "the drafted tokens").sort()
    if (tokens.diff() == 0).any() or tokens[0] < 0 or tokens[-1] >= size:
        raise CheckpointError(f"token_map must hold different tokens of 0 to {size - 1}")
    for name, each in weights.items():
        if name.startswith(projections) and each.dim():
            if len(each) == size:
                weights[name] = each[tokens]
            elif len(each) == drafted:
                weights[name] = each[order]
    return tokens
