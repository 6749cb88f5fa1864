"""What a drafter remembers: committed tokens and the target's own features, nothing of drafts."""

from __future__ import annotations

import torch

from specdec.decoding.clock import Clock
from specdec.decoding.draft_phase import DraftPhase
from specdec.decoding.loop import prefill
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree
from specdec.engine import Engine
from specdec.testing.cases import Case
from specdec.testing.properties.common import require, same_trees, shrinking
from specdec.testing.subject import Subject
from specdec.testing.tree_recorder import Drafted, record


def drafter_is_as_if_fresh(subject: Subject, case: Case) -> float:
    """After every step the drafter drafts as one that has just begun on the committed text."""
    engine = subject.of(case)
    recorded, trees = record(engine)
    running = shrinking(recorded, case)
    largest, before, due = 0.0, 0, None
    for step in running:
        rows = step.verification.active.nonzero().flatten().tolist()
        drafted = trees[-1] if len(trees) > before else None
        before = len(trees)
        if due is not None:
            tree, fresh, request_rows = due
            for row in rows:
                was = request_rows.index(step.request_rows[row])
                largest = max(largest, _same_root_distribution(drafted, fresh, row, was))
                what = "a drafter that has just begun drafts otherwise"
                same_trees(step.tree, tree, row, what, was)
        if running.state.finished:
            break
        due = (*_from_the_start(engine, running.state), step.request_rows)
    return largest


@torch.inference_mode()
def _from_the_start(engine: Engine, old: State) -> tuple[DraftTree, Drafted | None]:
    """The tree that a new drafter drafts for the same text after a prefill of all of it."""
    recorded, trees = record(engine)
    lengths = old.host_lengths
    state = State(
        [old.tokens[row, :length].tolist() for row, length in enumerate(lengths)],
        processors=old.processors,
        randomness=old.randomness,
        stopping=old.stopping,
        cache=engine.target.new_cache(old.rows, max(lengths)) if old.cache else None,
        vocab_size=old.vocab_size,
        device=old.tokens.device,
    )
    state.finish_reasons, state.active = list(old.finish_reasons), old.active.clone()
    draft_phase = DraftPhase(recorded.parts, Clock(recorded.target.device))
    draft_phase.start(state, prefill(engine.target, state))
    tree = draft_phase.tree()
    return tree, trees[-1] if trees else None


def _same_root_distribution(
    drafted: Drafted | None, fresh: Drafted | None, row: int, fresh_row: int
) -> float:
    """The largest difference of log q at the root."""
    if not drafted or not fresh or not drafted.proposals or not fresh.proposals:
        require(bool(drafted) == bool(fresh), "a drafter that has just begun is asked otherwise")
        return 0.0
    q, due = drafted.proposals[0].log_q[row, 0], fresh.proposals[0].log_q[fresh_row, 0]
    gap = float((q - due).abs().masked_fill(q == due, 0.0).max())  # equal -inf with it
    require(
        gap <= (1e-9 if drafted.double else 1e-4),
        f"row {row}: log q at the root is {q.tolist()}, a drafter that has just begun on the same "
        f"text has {due.tolist()}",
    )
    return gap
