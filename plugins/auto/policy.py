"""The tree policy ``auto``: each step verifies the tree of most expected tokens a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from specdec.decoding.clock import StepSeconds, wait_for
from specdec.decoding.interfaces import LevelProposer, ReadsLater, TreeGrower, TreePolicy
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import MOST_CHILDREN, MOST_LEVELS, MOST_NODES, DraftTree
from specdec.decoding.tree_builder import TreeBuilder, parents_of_children
from specdec.drafting.calibration import ScoredLevel, learn_acceptance
from specdec.drafting.coupling import COUPLED, couple
from specdec.drafting.ngram_matcher import Continuation
from specdec.drafting.prompt_lookup import PromptLookup
from specdec.drafting.reranking import top_by_value
from specdec.drafting.seconds_by_size import break_even_tokens, length_bucket
from specdec.plugin.components import IsPath
from specdec_plugins.auto.acceptance import LASTING, prior_at
from specdec_plugins.auto.decision import Decision
from specdec_plugins.auto.memory import CHANGING, Memory

# The most last tokens that are looked for earlier in the text: longer matches are hardly surer.
MATCH = 5
# Once a calibration has as much evidence as it keeps, it is updated at one step with drafts of so
# many: an update takes a tenth of a millisecond.
LEARN_EVERY = 4


class AutoOptions(BaseModel):
    """Options of the tree policy ``auto``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(
        16,
        ge=1,
        le=MOST_LEVELS,
        description="the most levels of draft tokens in a step; with size_by_cost=false all "
        "of them",
    )
    width: int = Field(4, ge=1, le=MOST_CHILDREN, description="nodes expanded on each level")
    children: int = Field(8, ge=1, le=MOST_CHILDREN, description="children of each of them")
    budget: int = Field(
        60, ge=1, le=MOST_NODES, description="the most draft tokens verified in a step"
    )
    coupled: bool = Field(True, description=COUPLED)
    calibrated: bool = Field(True, description="learn what draft scores mean from what is accepted")
    size_by_cost: bool = Field(
        True, description="fit depth and budget of each step to measured costs; false: as given"
    )
    prompt_lookup: bool = Field(
        True, description="draft from the text itself too; with a drafter it needs size_by_cost"
    )
    use_drafter: bool = Field(
        True, description="grow trees with the drafter; false: draft from the text itself alone"
    )
    calibration_file: Annotated[str | None, IsPath()] = Field(
        None,
        description="file from which learned calibrations are loaded and to which they are saved",
    )

    @model_validator(mode="after")
    def _drafts_with_something(self) -> AutoOptions:
        if not (self.use_drafter or self.prompt_lookup):
            raise ValueError(
                "without use_drafter and prompt_lookup nothing is left to draft with: see 'plain'"
            )
        return self


class AutoPolicy(TreePolicy):
    """Each step verifies the tree, drafted by whichever sources, that maximises expected tokens
    over expected seconds; plain decoding is the tree of no draft tokens.

    * *Sources*: the drafter's levels and what followed the last tokens earlier in the text are
      candidates of one tree. Without a drafter (``use_drafter=False``) the text is the only source.
    * *Acceptance*: a candidate's value is the learned probability that the target takes it
      (:mod:`~specdec.drafting.calibration`); at temperature above 0 draft scores carry the
      noise of the target's own draw.
    * *Costs*: seconds of verifying n nodes and of drafting, as measured
      (:mod:`~specdec_plugins.auto.costs`).
    * *Decision and exploration*: :mod:`~specdec_plugins.auto.decision`.

    Source: EAGLE-2 (arXiv 2406.16858), section 4 for the two phases; OPT-Tree (arXiv 2406.17276)
    and Sequoia (arXiv 2402.12374) for trees that fit a budget and a machine; Saxena 2023, prompt
    lookup decoding.
    """

    def __init__(self, options: AutoOptions) -> None:
        self.options, self.coupled = options, options.coupled
        # What is learned is learned from all texts of the engine.
        self.depends_on_own_row_only = not (options.calibrated or options.size_by_cost)
        self.memory = Memory(
            Path(options.calibration_file).expanduser() if options.calibration_file else None
        )

    def start(self, state: State, proposer: LevelProposer | None) -> AutoGrower:
        return AutoGrower(self.options, self.memory, state, proposer)


class AutoGrower(TreeGrower):
    """The trees of one generation.

    Args:
        proposer: of the levels; None where the text is the only source.
    """

    def __init__(
        self, options: AutoOptions, memory: Memory, state: State, proposer: LevelProposer | None
    ) -> None:
        self.options, self._memory, self._state, self._proposer = options, memory, state, proposer
        processors, coupled = state.processors, options.coupled
        prior = prior_at(processors.temperature, greedy=processors.greedy, coupled=coupled)
        self._setting = f"{processors.setting}, coupled={coupled}"
        self._calibration = memory.calibration(self._setting, prior, state.tokens.device)
        self._seen, self._grown, self._expanded = 0, list[ScoredLevel](), 0.0
        # Where each path is verified by itself a node costs a forward: as without costs.
        self._decision: Decision | None = None
        if options.size_by_cost and state.cache is not None:
            depth = options.depth if proposer else 0
            self._decision = Decision(depth, options.budget, memory.exploration)
        self._lookup: PromptLookup | None = None
        if options.prompt_lookup and (self._decision or not proposer):
            self._lookup = PromptLookup(state, MATCH, min(options.depth, options.budget))
        self._guesses: dict[int, Continuation] = {}
        self._prepare(state.rows, new_tokens=0)

    @property
    def levels(self) -> int:  # type: ignore[override]
        if self._decision:
            return self._decision.levels
        return self.options.depth if self._proposer else 0

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        scores, tokens = self._scored(builder, proposal, self.options.children)
        k = scores.shape[-1]
        if self.options.calibrated:
            confidence = self._calibration.log_acceptance(scores)
            self._grown.append(ScoredLevel(builder.frontier, scores, tokens))
        else:
            confidence = scores.float()
        values = (builder.frontier.log_value[:, :, None] + confidence).flatten(1)
        parents = parents_of_children(builder.frontier.width, k, tokens.device)
        builder.add(tokens.flatten(1), parents, values, branching=k)
        builder.advance_best(self.options.width)
        if self._decision and builder.depth < self.levels:
            probabilities = self._probabilities(values)
            best = probabilities.topk(min(self.options.width, probabilities.shape[1]), dim=1).values
            unfinished = self._state.active.sum()
            sums = torch.stack(
                [probabilities.sum(), best.sum(), unfinished.to(probabilities.dtype)]
            )
            candidates, to_expand, rows = sums.tolist()
            if not self._decision.another_level(
                expanded=self._expanded if builder.depth > 1 else rows,
                to_expand=to_expand,
                candidates=candidates,
                depth=builder.depth,
            ):
                builder.stop()
            self._expanded = to_expand
        elif self._decision:
            wait_for(values.device)  # other levels end with a read

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        decision, levels = self._decision, builder.depth
        if decision:
            self._merge_lookup(builder, decision.lookup_tokens, decision.lookup_accepted_share)
        else:
            self._merge_lookup(builder, self.options.depth, 1.0)
        if builder.size == 1:
            return DraftTree.root(self._state.root())
        if decision is None:
            return top_by_value(builder, self.options.budget)
        if levels == 0:
            return builder.tree()
        ranked = builder.values.sort(dim=1, descending=True, stable=True)
        gains = self._probabilities(ranked.values).sum(dim=0).cumsum(dim=0)
        deepest = builder.candidate_levels[ranked.indices].amax(dim=0).cummax(dim=0).values
        by_count, depths = torch.stack([gains, deepest.to(gains.dtype)]).tolist()
        count = decision.nodes(by_count)
        if count == 0:
            return DraftTree.root(self._state.root())
        depth = int(depths[count - 1])
        return top_by_value(builder, count, order=ranked.indices, depth=depth)

    def learn(self, step: Step, seconds: StepSeconds) -> None:
        with CHANGING:
            self._learn(step, seconds)

    def _learn(self, step: Step, seconds: StepSeconds) -> None:
        if self._grown:
            self._seen += 1
            few = self._calibration.steps < LASTING
            if few or self._seen % LEARN_EVERY == 0:
                learn_acceptance(self._calibration, self._grown, self._state, step)
            self._grown = []
        if self._decision:
            accepted = None if any(step.finish_reasons) else sum(step.accepted)
            self._decision.commit(seconds, step.tree.size, accepted)
        if self._lookup:
            self._lookup.commit(step)
        if not self._state.finished:
            self._prepare(len(step.new_tokens), step.longest)

    def learn_texts(self, texts: Sequence[Sequence[int]]) -> None:
        with CHANGING:
            if self._decision:
                self._decision.close()
            self._memory.save()

    def _prepare(self, batch: int, new_tokens: int) -> None:
        """Decide on the step that comes.

        Args:
            new_tokens: committed ones that the drafter has not been told of yet.
        """
        state, proposer, decision = self._state, self._proposer, self._decision
        self._guesses = {}
        if self._lookup:
            guesses = zip(state.request_rows, self._lookup.guesses(), strict=True)
            self._guesses = {request_row: guess for request_row, guess in guesses if guess.tokens}
        if decision:
            break_even = break_even_tokens(state.tokens.device)
            costs = self._memory.costs(batch, length_bucket(state.longest), break_even)
            decision.open(costs, self._memory.acceptance(self._setting, batch), batch)
            rows = sum(reason is None for reason in state.finish_reasons)
            probabilities = [guess.probabilities for guess in self._guesses.values()]
            unread = proposer.unread_tokens + new_tokens if isinstance(proposer, ReadsLater) else 0
            decision.prepare(rows, state.room, unread, _summed(probabilities))

    def _merge_lookup(self, builder: TreeBuilder, most: int, share: float) -> None:
        """Make the first ``most`` tokens of the prompt-lookup chains candidates of the tree.

        Args:
            share: of such draft tokens that was accepted so far, by which values are multiplied.
        """
        if self._lookup is None or most == 0:
            return
        request_rows = self._state.request_rows
        guesses = [
            self._guesses.get(request_row, Continuation()).first(most)
            for request_row in request_rows
        ]
        chain = self._lookup.tree(guesses)
        if chain.depth:
            log_value = chain.log_value[:, 1:] + math.log(max(1e-9, min(1.0, share)))
            builder.merge_chain(chain.tokens[:, 1:], log_value)

    def _probabilities(self, values: Tensor) -> Tensor:
        """Values ``[B, n]`` as probabilities, 0 in rows that have ended."""
        return values.exp() * self._state.active[:, None]

    def _scored(self, builder: TreeBuilder, proposal: Proposal, k: int) -> tuple[Tensor, Tensor]:
        """The k best children of every frontier node: scores and tokens ``[B, n, k]``."""
        if not self.options.coupled:
            return proposal.top(k)
        guess = couple(builder, proposal)
        if guess is proposal or not self.options.calibrated:
            return guess.top(k)
        best = guess.logits.topk(min(k, guess.logits.shape[-1]), dim=-1)
        return best.values, guess.tokens(best.indices)


def _summed(probabilities: Sequence[Sequence[float]]) -> list[float]:
    """Tokens that the first n of each row's chain expect, of all rows, by n from 1 on."""
    length = max(map(len, probabilities), default=0)
    by_place = [sum(own[n] for own in probabilities if n < len(own)) for n in range(length)]
    return list(accumulate(by_place))
