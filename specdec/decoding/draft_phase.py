"""The draft phase of a step: a tree is grown (expansion), and the best of it kept (reranking)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from specdec.decoding.clock import Clock
from specdec.decoding.first_rank import agreed_tree
from specdec.decoding.interfaces import (
    Features,
    KeepsRows,
    LearnsFromSteps,
    LearnsFromTexts,
    LevelDrafter,
    LevelProposer,
    Proposer,
    Resumable,
    TreeGrower,
    TreeProposer,
)
from specdec.decoding.parts import Parts
from specdec.decoding.randomness import RowRandomness
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree, label
from specdec.decoding.tree_builder import TreeBuilder
from specdec.errors import PluginError
from specdec.models.ranks import Ranks


class DraftPhase:
    """What drafts the trees of one generation.

    Args:
        parts: of the strategy.
        clock: of the generation.
        before: the proposer of the generation that this one goes on from.
        may_shrink: whether finished rows may leave the batch as far as the caller is concerned.
        ranks: of a target that several processes hold. All of them draft, as drafting may take
            layers of the target; how many levels, which tree and what it took, the first one says.

    Attributes:
        proposer: what the drafter has started; None if the strategy has no drafter.
        shrinks: whether finished rows leave the batch: where whatever keeps something by row can
            let them go.
    """

    def __init__(
        self,
        parts: Parts,
        clock: Clock,
        before: Proposer | None = None,
        *,
        may_shrink: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self._parts, self._clock, self._before = parts, clock, before
        self._may_shrink, self._ranks = may_shrink, ranks
        self.proposer: Proposer | None = None
        self._grower: TreeGrower | None = None

    def start(self, state: State, features: Features) -> None:
        """The prompts have been read.

        Raises:
            PluginError: a drafter or policy that starts something else than its role says.
        """
        self._state = state
        drafter, policy = self._parts.drafter, self._parts.policy
        before, self._before = self._before, None
        if isinstance(before, Resumable) and any(features.starts):
            before.resume(state, features)
            self.proposer = before
        elif drafter is not None:
            self.proposer = drafter.start(state, features)
            by_level = isinstance(drafter, LevelDrafter)
            _check_started(self.proposer, LevelProposer if by_level else TreeProposer, drafter)
        if policy is not None:
            levels = self.proposer if isinstance(self.proposer, LevelProposer) else None
            self._grower = policy.start(state, levels)
            _check_started(self._grower, TreeGrower, policy)
            if not hasattr(self._grower, "levels"):
                name = type(self._grower).__name__
                raise PluginError(f"{name} has no `levels`: set how many levels it grows")
        able = self.proposer is None or isinstance(self.proposer, KeepsRows)
        self.shrinks = self._may_shrink and able and isinstance(state.randomness, RowRandomness)
        self._clock.step()  # what came before the first step is no part of it

    def tree(self) -> DraftTree:
        """The tree to verify, no deeper than the rows' limits leave room for.

        Raises:
            PluginError: a tree whose draws the acceptor is not exact for.
        """
        tree = self._own_tree()
        return tree if self._ranks is None else agreed_tree(self._ranks, tree)

    def _own_tree(self) -> DraftTree:
        state = self._state
        tree = self._tree(state) if state.room else None
        if tree is None:
            return DraftTree.root(state.root())
        if tree.draws not in self._parts.acceptor.supports:
            name = type(self._parts.acceptor).__name__
            raise PluginError(f"{name} is not exact for {tree.draws.value} draws")
        if tree.depth <= state.least_room:
            return tree
        # The room depends on lengths alone, and whole sets of siblings go: the label stays true.
        return label(tree.limited(state.room_by_row()), tree.draws, tree.sampled_from)

    def _tree(self, state: State) -> DraftTree | None:
        if isinstance(self.proposer, TreeProposer):
            return self.proposer.tree(state)
        return None if self._grower is None else self._grow(self._grower, self.proposer, state)

    def _grow(self, grower: TreeGrower, proposer: LevelProposer | None, state: State) -> DraftTree:
        """The expansion phase, then the reranking phase."""
        builder = TreeBuilder(state)
        levels = 0 if proposer is None else min(grower.levels, state.room)
        while proposer is not None and self._another(
            builder.depth < levels and not builder.stopped
        ):
            depth = builder.depth
            with self._clock.draft_level():
                grower.expand(builder, proposer.propose(builder.frontier))
            if builder.depth == depth and not builder.stopped:
                raise PluginError(
                    f"{type(grower).__name__}.expand added no level: it must call builder.add, or "
                    "builder.stop where it wants none"
                )
        return grower.rerank(builder)

    def _another(self, wanted: bool) -> bool:
        """Whether to grow another level."""
        return wanted if self._ranks is None else self._ranks.decided(lambda: wanted)

    def commit(self, step: Step) -> None:
        """A step has been committed."""
        seconds = self._clock.step()
        if self._ranks is not None:
            own = seconds
            seconds = self._ranks.decided(lambda: own)
        for learner in (self._grower, self.proposer):
            if isinstance(learner, LearnsFromSteps):
                learner.learn(step, seconds)
        if self.proposer is not None and not self._state.finished:
            self.proposer.commit(step)

    @torch.inference_mode()
    def end(self, texts: Sequence[Sequence[int]]) -> None:
        """The generation is over.

        Args:
            texts: the new tokens of each row of the request.
        """
        with ExitStack() as each:  # whatever another one raises
            for learner in (self.proposer, self._grower):
                if isinstance(learner, LearnsFromTexts):
                    each.callback(learner.learn_texts, texts)

    def keep_unfinished(self) -> None:
        """Let finished rows leave the batch: tokens, caches, randomness and proposer together."""
        rows = self._state.keep_unfinished()
        for keeper in (self.proposer, self._grower):
            if isinstance(keeper, KeepsRows):
                keeper.keep_rows(rows)


def _check_started(made: object, due: type, part: object) -> None:
    """Refuse what a part has started if its role says something else."""
    if not isinstance(made, due):
        raise PluginError(
            f"{type(part).__name__}.start returned a {type(made).__name__}: it must return "
            f"{due.__name__}"
        )
