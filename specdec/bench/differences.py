"""Whether two outputs may differ, their first difference, and the target's logit gap there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from specdec.errors import out_of_memory

if TYPE_CHECKING:
    from specdec.engine import Engine


def may_differ(engine: Engine, *, greedy: bool) -> str | None:
    """Why an engine's tokens need not be plain decoding's; None where they must be."""
    acceptor = engine.parts.acceptor
    if greedy or acceptor.seed_exact:
        return None
    name = engine.selection.names["acceptor"]
    if not acceptor.lossless:
        return f"LOSSY: {name} does not keep the target's distribution"
    return f"{name} keeps the distribution, not the draw"


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Index of the first token that differs, or at which one of them ends; None if they agree."""
    if list(ours) == list(theirs):
        return None
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def logit_gap(model: Any, tokens: Sequence[int]) -> float | None:
    """How far the two best logits of a transformers model after ``tokens`` are apart; None where
    that does not fit into memory, which costs no runs that are over."""
    try:
        with torch.inference_mode():
            ids = torch.tensor([list(tokens)], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, -1].double()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return None
    best = logits.topk(2).values
    return float(best[0] - best[1])
