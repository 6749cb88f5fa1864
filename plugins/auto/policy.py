"""The tree policy ``auto``: the set of nodes that is worth most on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from specdec.decoding.clock import Clock, StepSeconds
from specdec.decoding.interfaces import LevelDrafts, TreeGrower, TreePolicy
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder, frontier_rows_of_children
from specdec.drafting.coupling import couple
from specdec.drafting.prompt_lookup import Lookup
from specdec.plugin.components import IsPath
from specdec_plugins.auto.calibration import GREEDY, SAMPLED, coupled_at
from specdec_plugins.auto.costs import Costs
from specdec_plugins.auto.economy import Economy
from specdec_plugins.auto.lessons import Level, learn
from specdec_plugins.auto.memory import Memory
from specdec_plugins.auto.pace import Pace, Plan, TextAlone
from specdec_plugins.auto.record import Record
from specdec_plugins.auto.shortcut import Shortcut

# The most last tokens that are looked for earlier in the text.
_MATCH = 5
_OFTEN, _SELDOM = 32, 4  # learn at each of the first steps, then at every fourth


class AutoOptions(BaseModel):
    """Options of the tree policy ``auto``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(
        16,
        ge=1,
        le=64,
        description="the most levels of draft tokens in a step; all of them where costs=false",
    )
    width: int = Field(4, ge=1, description="nodes expanded on each level")
    children: int = Field(8, ge=1, description="children of each of them")
    budget: int = Field(60, ge=1, description="the most draft tokens verified in a step")
    coupled: bool = Field(True, description="rank draft tokens by the noise of the target's draw")
    calibrated: bool = Field(True, description="learn what draft scores mean from what is accepted")
    costs: bool = Field(
        True, description="fit depth and budget of each step to measured costs; false: as given"
    )
    lookup: bool = Field(
        True, description="draft from the text itself where that brings more; needs costs"
    )
    grow: bool = Field(
        True, description="grow trees with the drafter; false: draft from the text itself alone"
    )
    memory: Annotated[str | None, IsPath()] = Field(
        None, description="file that keeps what was learned of acceptance, read and written"
    )

    @model_validator(mode="after")
    def _drafts(self) -> AutoOptions:
        if not (self.grow or self.lookup):
            raise ValueError("without grow and lookup nothing is left to draft with: see 'plain'")
        return self


class AutoGrower(TreeGrower):
    """Grow by learned acceptance, stop where a level costs more than it brings, verify what pays.

    * *Value*: a child's confidence is the learned probability that the target draws it
      (:mod:`~specdec_plugins.auto.calibration`).
    * *Coupling*: at temperature above 0 scores carry the noise of the target's draw.
    * *Cost*: depth and budget are those that bring most tokens a second
      (:mod:`~specdec_plugins.auto.shortcut`); drafting that does not pay stops, and is tried again
      (:mod:`~specdec_plugins.auto.record`).
    * *Text*: where the text repeats itself, what followed the last tokens before is verified in
      place of a grown tree, if that brings more. Without a drafter (``grow=False``) that is all.

    Source: EAGLE-2 (arXiv 2406.16858), section 4 for the two phases; OPT-Tree (arXiv 2406.17276)
    and Sequoia (arXiv 2402.12374) for trees that fit a budget and a machine.
    """

    def __init__(self, policy: AutoPolicy, state: State, drafts: LevelDrafts | None) -> None:
        self.options, self.memory = policy.options, policy.memory
        self._clock = Clock()
        self._text: DraftTree | None = None
        self._asked = False
        self.begin(state, self._clock)

    @property
    def plan(self) -> Plan:
        """Depth and budget of the step that comes: known before it begins, reached unless the texts
        end sooner. Where values are read (:attr:`looks`) they are the most that it may take."""
        return self._pace.plan

    @property
    def levels(self) -> int:  # type: ignore[override]
        if not self._asked:
            self._asked, self._text = True, self.tree(self._state)
        return 0 if self._text is not None else self.plan.depth

    def begin(self, state: State, clock: Clock) -> None:
        self._state, self._seen = state, 0
        processors = state.processors
        coupled = self.options.coupled
        uncoupled = GREEDY if processors.greedy else SAMPLED
        prior = coupled_at(processors.temperature) if coupled else uncoupled
        self._setting = f"{processors.setting}, coupled={coupled}"
        self._calibration = self.memory.calibration(self._setting, prior, state.tokens.device)
        self._forget()
        self._pace = self._find_pace(state, clock)
        self._lookup: Lookup | None = None
        if self.options.lookup and isinstance(self._pace, (Economy, TextAlone)):
            self._lookup = Lookup(state, _MATCH, self.options.depth)

    def tree(self, state: State) -> DraftTree | None:
        if not self._pace.asks_text() or self._lookup is None:
            return None
        guesses = self._lookup.guesses()
        length = self._pace.from_text([guess.chances for guess in guesses])
        if length == 0:
            return None
        return self._lookup.tree([guess.first(length) for guess in guesses], length)

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        scores, tokens = self._scored(builder, proposal, self.options.children)
        k = scores.shape[-1]
        if self.options.calibrated:
            confidence = self._calibration.log_acceptance(scores)
            self._grown.append(Level(builder.frontier, scores, tokens))
        else:
            confidence = scores.float()
        values = (builder.frontier.log_value[:, :, None] + confidence).flatten(1)
        rows = frontier_rows_of_children(builder.frontier.width, k, tokens.device)
        builder.add(tokens.flatten(1), rows, values, branching=k)
        builder.advance_best(self.options.width)
        if not self._pace.goes_on(values):
            builder.stop()

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        _ = self.levels
        if self._text is not None:
            return self._text
        if builder.depth == 0:
            return DraftTree.root(self._state.root())
        self._levels = builder.depth
        return self._pace.tree(builder)

    def learn(self, step: Step, seconds: StepSeconds) -> None:
        self._asked, self._text = False, None
        for phase, spent in (
            ("draft", sum(seconds.levels)),
            ("verify", seconds.verify),
            ("commit", seconds.other),
        ):
            self._clock.seconds[phase] += spent
        if self._grown:
            self._seen += 1
            if self._calibration.steps < _OFTEN or self._seen % _SELDOM == 0:
                learn(self._calibration, self._grown, self._state, step)
        self._pace.commit(step, self._levels)
        if self._levels:
            self._forget()
        if self._lookup:
            self._lookup.commit(step)
        if self._state.finished:
            self.memory.save()

    def _forget(self) -> None:
        """What was grown is of no use any more."""
        self._grown: list[Level] = []
        self._levels = 0

    def _find_pace(self, state: State, clock: Clock) -> Pace:
        """By costs, unless they are off, or no single forward verifies a tree."""
        options = self.options
        most = Plan(options.depth, options.budget)
        uncounted = Pace(most) if options.grow else TextAlone()
        if not options.costs or state.cache is None:
            return uncounted
        return Shortcut(most, self._books, options.width, state, clock, options.grow)

    def _books(self, rows: int, length: int) -> tuple[Costs, Record]:
        return self.memory.costs_of(rows, length), self.memory.record(self._setting, rows)

    def _scored(self, builder: TreeBuilder, proposal: Proposal, k: int) -> tuple[Tensor, Tensor]:
        """The k best children of every frontier node: scores and tokens ``[B, n, k]``."""
        if not self.options.coupled:
            return proposal.top(k)
        guess = couple(builder, proposal)
        if guess is proposal or not self.options.calibrated:
            return guess.top(k)
        best = guess.logits.topk(min(k, guess.logits.shape[-1]), dim=-1)
        return best.values, guess.tokens(best.indices)


class AutoPolicy(TreePolicy):
    """The policy: made once."""

    def __init__(self, options: AutoOptions) -> None:
        self.options, self.coupled = options, options.coupled
        self.memory = Memory(Path(options.memory).expanduser() if options.memory else None)

    def start(self, state: State, drafts: LevelDrafts | None) -> AutoGrower:
        return AutoGrower(self, state, drafts)
