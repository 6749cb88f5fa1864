"""Draft vocabularies of EAGLE-3 checkpoints: ``d2t`` and ``t2d``."""

from __future__ import annotations

import torch
from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.heads.token_map import whole_numbers


def read_vocabulary(d2t: Tensor | None, t2d: Tensor | None, draft_size: int, size: int) -> Tensor:
    """The target's tokens that the rows of the head's lm_head stand for: ``[D]`` int64, ascending.

    Args:
        d2t: ``[D]`` whole numbers, what to add to a row's index to get its token; None where
            D = V.
        t2d: ``[V]`` bool, which of the target's tokens are among them; may be missing.

    Raises:
        CheckpointError: with the name of the tensor that is wrong.
    """
    rows = torch.arange(draft_size)
    if d2t is None:
        tokens = rows
    else:
        d2t = whole_numbers("d2t", d2t, draft_size, "one for each row of lm_head.weight")
        tokens = rows + d2t
    if t2d is not None:
        _check_marks(t2d, size)
    inside = bool(((tokens >= 0) & (tokens < size)).all())
    ascending = bool((tokens[1:] > tokens[:-1]).all())
    fits = inside and ascending and _marked(t2d, tokens)
    if d2t is not None and _looks_absolute(d2t, size) and not (fits and t2d is not None):
        raise CheckpointError(
            "d2t ascends strictly, so that it seems to hold token ids, where offsets are meant: "
            "token = row + d2t[row]. Store d2t - arange(D)"
        )
    if not inside:
        raise CheckpointError(
            f"d2t points at the token {int(tokens[(tokens < 0) | (tokens >= size)][0])}, the "
            f"vocabulary has 0 to {size - 1}: token = row + d2t[row]"
        )
    if not ascending:
        raise CheckpointError("d2t does not give ascending tokens: token = row + d2t[row]")
    if not fits:
        raise CheckpointError(
            "t2d does not mark the tokens that d2t gives (token = row + d2t[row]): they belong to "
            "different heads"
        )
    return tokens


def offsets(vocabulary: Tensor) -> Tensor:
    """``d2t`` of a draft vocabulary ``[D]``: int64 offsets."""
    return vocabulary - torch.arange(len(vocabulary), device=vocabulary.device)


def marks(vocabulary: Tensor, size: int) -> Tensor:
    """``t2d`` of a draft vocabulary ``[D]``: ``[V]`` bool."""
    marked = torch.zeros(size, dtype=torch.bool, device=vocabulary.device)
    marked[vocabulary] = True
    return marked


def _check_marks(t2d: Tensor, size: int) -> None:
    if tuple(t2d.shape) != (size,) or not (t2d.dtype == torch.bool or _whole(t2d)):
        raise CheckpointError(
            f"t2d is {_kind(t2d)}: it must hold {size} booleans, one for each token of the target"
        )


def _marked(t2d: Tensor | None, tokens: Tensor) -> bool:
    if t2d is None:
        return True
    marked = t2d.bool()
    return int(marked.sum()) == len(tokens) and bool(marked[tokens].all())


def _looks_absolute(d2t: Tensor, size: int) -> bool:
    """Whether token ids were stored: offsets of neighbouring tokens are equal, ids never are."""
    ids = len(d2t) > 1 and bool((d2t[1:] > d2t[:-1]).all())
    return ids and int(d2t[0]) >= 0 and int(d2t[-1]) < size


def _whole(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
