"""Comparison of a strategy's tokens with plain decoding's."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.cli.runs import ContenderRuns, Streamed


@dataclass(frozen=True)
class Identity:
    """The verdict.

    Attributes:
        identical: None where equal tokens are not to be expected, or nothing was compared.
        reason: one line.
        first_difference: index of the first new token that differs.
        logit_gap: between the target's two best logits there; of greedy decoding only, and None
            too where memory did not suffice to find it.
    """

    identical: bool | None
    reason: str
    first_difference: int | None = None
    logit_gap: float | None = None


def compare(contender: ContenderRuns, plain: ContenderRuns | None, run: Streamed) -> Identity:
    """Compare a contender's tokens with plain decoding's under the same settings and seed."""
    from specdec.bench.differences import first_difference, logit_gap, may_differ

    if plain is None:
        return Identity(None, "not compared with plain decoding")
    if contender is plain:
        return Identity(True, "this is plain decoding")
    if contender.result is None or plain.result is None or run.interrupted:
        return Identity(None, "interrupted before the comparison")
    if why := may_differ(contender.engine, greedy=run.greedy):
        return Identity(None, why)
    both = zip(contender.results, plain.results, strict=True)
    texts = [(ours.token_ids, theirs.token_ids) for ours, theirs in both]
    found = [first_difference(*both) for both in texts]
    place = next((text for text, at in enumerate(found) if at is not None), None)
    if place is None:
        how = "greedy" if run.greedy else "same seed"
        tokens = sum(len(ours) for ours, _ in texts)
        return Identity(True, f"the same {tokens} tokens as plain decoding, {how}")
    at, theirs = found[place], texts[place][1]
    assert at is not None
    dtype = str(contender.engine.target.dtype).removeprefix("torch.")
    reason = f"first difference at new token {at}, in {dtype}"
    gap = None
    if run.greedy:
        gap = logit_gap(contender.engine.target.model, [*run.prompt_ids, *theirs[:at]])
    if gap is not None:
        reason += f"; the target's two best logits there are {gap:.3g} apart"
    return Identity(False, reason, at, gap)
