"""Drafters that were not asked for some steps read what was committed meanwhile at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from parts import policy_of
from tiny import PROMPTS

from specdec import Component, Engine, hookimpl
from specdec.decoding.clock import StepSeconds
from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import TreeGrower
from specdec.decoding.proposal import Proposal
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.expansion import grow_level
from specdec.testing.properties.freshness import _from_the_start
from specdec.testing.tree_recorder import record


class Sometimes(TreeGrower):
    """Asks the drafter in some steps only: in every ``every``-th, for a tree of two levels.

    Args:
        verified: whether the tree is verified; if not every step commits one token.
    """

    def __init__(self, every: int, verified: bool) -> None:
        self.every, self.verified, self._step = every, verified, 0

    @property
    def levels(self) -> int:  # type: ignore[override]
        return 2 if self._step % self.every == self.every - 1 else 0

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        grow_level(builder, proposal, 2)
        builder.advance_best(2)

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        return builder.tree() if self.verified else DraftTree.root(builder.state.root())

    def learn(self, step: Step, seconds: StepSeconds) -> None:
        self._step += 1


class Skipping:
    """Registers the policy as ``skipping``."""

    def __init__(self, every: int, verified: bool = False) -> None:
        self.make = policy_of(lambda: Sometimes(every, verified))

    @hookimpl
    def specdec_tree_policies(self) -> list[Component]:
        return [Component("skipping", self.make, description="asks in some steps only")]


def skipping(plain: Engine, kind: str, folder: Path, every: int, verified: bool = False) -> Engine:
    made = Engine(
        plain.target.model,
        strategy="eagle2",
        drafter=kind,
        policy="skipping",
        plugins=[Skipping(every, verified)],
        options={"drafter": {"checkpoint": str(folder)}},
    )
    return made


@contextmanager
def unread(most: int) -> Iterator[list[int]]:
    """Within, so many tokens may be left unread; yields how many each draft forward reads."""
    from specdec.drafting.network_drafter import NetworkProposer

    reads: list[int] = []
    propose, commit = NetworkProposer.propose, NetworkProposer.commit

    def proposed(self: NetworkProposer, frontier: Frontier) -> Proposal:
        if frontier.depth == 0:
            reads.append(self.unread_tokens)
        return propose(self, frontier)

    def committed(self: NetworkProposer, step: Step) -> None:
        before = self.unread_tokens
        commit(self, step)
        if self.unread_tokens < before + step.longest:
            reads.append(before)

    with (
        mock.patch("specdec.drafting.network_drafter.MOST_UNREAD", most),
        mock.patch.object(NetworkProposer, "propose", proposed),
        mock.patch.object(NetworkProposer, "commit", committed),
    ):
        yield reads


@pytest.mark.parametrize("kind", ["draft_model", "eagle", "eagle3"])
@pytest.mark.parametrize("every", [1, 2, 4, 5, 6, 13])
def test_tokens_left_unread_for_some_steps_give_the_drafts_of_reading_each(
    plain: Engine, draft: Path, head: Path, head3: Path, kind: str, every: int
) -> None:
    folder = {"draft_model": draft, "eagle": head, "eagle3": head3}[kind]
    chosen: dict[str, Any] = {"max_new_tokens": 30, "temperature": 0, "eos_token_id": []}
    with unread(5) as reads:
        own, found = record(skipping(plain, kind, folder, every))
        list(own.session().start(PROMPTS, **chosen))
    always, due = record(skipping(plain, kind, folder, 1))
    list(always.session().start(PROMPTS, **chosen))
    wanted = due[every - 1 :: every]
    assert len(found) >= len(wanted) > 1
    for ours, theirs in zip(found, wanted, strict=False):
        for mine, other in zip(ours.proposals, theirs.proposals, strict=True):
            torch.testing.assert_close(mine.logits, other.logits, rtol=1e-9, atol=1e-9)
    bound = 5 + 1 + max(map(len, PROMPTS))
    assert max(reads) <= bound
    assert len(reads) > 1


@pytest.mark.parametrize("kind", ["draft_model", "eagle", "eagle3"])
@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("most", [2, 128])
def test_a_drafter_that_skipped_steps_between_accepted_drafts_is_as_if_fresh(
    plain: Engine, draft: Path, head: Path, head3: Path, kind: str, every: int, most: int
) -> None:
    folder = {"draft_model": draft, "eagle": head, "eagle3": head3}[kind]
    fresh = skipping(plain, kind, folder, 1)
    chosen: dict[str, Any] = {"max_new_tokens": 50, "temperature": 0}
    accepted, compared = 0, 0
    for ends in ([], [29, 7]):
        with unread(most):
            own, found = record(skipping(plain, kind, folder, every, verified=True))
            running = own.start(PROMPTS, eos_token_id=ends, **chosen)
            before, due = 0, None
            for one in running:
                if due is not None and len(found) > before:
                    for row in one.verification.active.nonzero().flatten().tolist():
                        was = due[1].index(one.request_rows[row])
                        mine = found[-1].proposals[0].log_q[row]
                        torch.testing.assert_close(mine, due[0].proposals[0].log_q[was])
                        compared += 1
                before, accepted = len(found), accepted + sum(one.accepted)
                if not running.state.finished:
                    _, drafted = _from_the_start(fresh, running.state)
                    due = (drafted, one.request_rows) if drafted else None  # none at the very end
    assert accepted > 5 and compared > 5
