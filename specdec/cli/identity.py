"""Whether a strategy's tokens are plain decoding's, and if not, where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdec.cli.runs import Lane, Streamed

if TYPE_CHECKING:
    from specdec.engine import Engine


@dataclass(frozen=True)
class Identity:
    """The verdict.

    Attributes:
        identical: None where equal tokens are not to be expected, or nothing was compared.
        reason: one line.
        first_difference: index of the first new token that differs.
        logit_gap: between the target's two best logits there; of greedy decoding only.
    """

    identical: bool | None
    reason: str
    first_difference: int | None = None
    logit_gap: float | None = None


def compare(lane: Lane, plain: Lane | None, run: Streamed) -> Identity:
    """Compare a lane's tokens with plain decoding's under the same settings and seed."""
    acceptor = lane.engine.parts.acceptor
    name = lane.engine.selection.names["acceptor"]
    if plain is None:
        return Identity(None, "not compared with plain decoding")
    if lane is plain:
        return Identity(True, "this is plain decoding")
    if lane.result is None or plain.result is None or run.interrupted:
        return Identity(None, "interrupted before the comparison")
    if not run.greedy and not acceptor.lossless:
        return Identity(None, f"LOSSY: {name} does not keep the target's law")
    if not run.greedy and not acceptor.seed_exact:
        return Identity(None, f"{name} keeps the law, not the draw")
    ours, theirs = lane.result.token_ids, plain.result.token_ids
    if ours == theirs:
        how = "greedy" if run.greedy else "same seed"
        return Identity(True, f"the same {len(ours)} tokens as plain decoding, {how}")
    at = _first_difference(ours, theirs)
    dtype = str(lane.engine.target.dtype).removeprefix("torch.")
    reason = f"first difference at new token {at}, in {dtype}"
    gap = None
    if run.greedy:
        gap = _logit_gap(lane.engine, [*run.prompt_ids, *theirs[:at]])
        reason += f"; the target's two best logits there are {gap:.3g} apart"
    return Identity(False, reason, at, gap)


def _first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int:
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def _logit_gap(engine: Engine, tokens: Sequence[int]) -> float:
    """How far the two best logits after ``tokens`` are apart."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([list(tokens)], device=engine.target.device)
        logits = engine.target.model(input_ids=ids, use_cache=False).logits[0, -1].double()
    best = logits.topk(2).values
    return float(best[0] - best[1])
