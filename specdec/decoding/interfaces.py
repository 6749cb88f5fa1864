"""The four roles that a strategy is made of. Hooks choose the parts; plain calls run them.

What is made once for an engine (weights, options) and what belongs to one generation are different
types: a drafter or a policy is asked to ``start`` and returns what drafts that generation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from specdec.decoding.clock import StepSeconds
from specdec.decoding.drafter_report import DrafterReport
from specdec.decoding.frontier import Frontier
from specdec.decoding.proposal import Proposal
from specdec.decoding.randomness import Randomness
from specdec.decoding.state import State
from specdec.decoding.step import Acceptance, Step
from specdec.decoding.tree import DraftTree, Draws
from specdec.decoding.tree_builder import TreeBuilder
from specdec.decoding.verification import Verification
from specdec.errors import PluginError
from specdec.models.hf_target import HFTarget
from specdec.models.hidden_states import HiddenStates


@dataclass(frozen=True)
class Needs:
    """What a drafter wants from the target's forwards, declared and checked at set-up.

    Attributes:
        hidden: whether it reads hidden states at all.
        aux_layers: layers whose hidden states it reads besides the features (0 is the embedding,
            i the output of layer i, the last of them before the final norm).

    Raises:
        PluginError: layers without ``hidden``.
    """

    hidden: bool = False
    aux_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.aux_layers and not self.hidden:
            raise PluginError(
                f"Needs(aux_layers={self.aux_layers}) reads hidden states: say hidden=True too"
            )


@dataclass(frozen=True)
class Features:
    """The target's hidden states of the tokens that a prefill read.

    Attributes:
        hidden: ``[B, n, H]``; row b's entry i belongs to the token at position ``starts[b] + i``,
            up to the token before the root; the rest is padding.
        starts: for each row the position of its first entry; 0 unless a cached prefix was kept.
    """

    hidden: HiddenStates
    starts: Sequence[int]


class LevelProposer(ABC):
    """Proposes draft tokens for one generation level by level, for a tree policy to choose from."""

    @abstractmethod
    def propose(self, frontier: Frontier) -> Proposal:
        """The draft distribution q at every frontier node. Frontiers come level by level, the root
        first."""

    def commit(self, step: Step) -> None:  # noqa: B027
        """A step has been committed: take its tokens and features, forget the draft tokens. Not
        called after the last step."""


class TreeProposer(ABC):
    """Proposes whole draft trees for one generation (n-gram, lookup); it needs no policy."""

    @abstractmethod
    def tree(self, state: State) -> DraftTree:
        """The draft tree of the step that comes."""

    def commit(self, step: Step) -> None:  # noqa: B027
        """A step has been committed, with or without drafts. Not called after the last step."""


class LevelDrafter(ABC):
    """A drafter that proposes draft tokens level by level; made once, with weights and options.

    Attributes:
        depends_on_own_row_only: as of a :class:`TreeDrafter`.
    """

    needs: Needs = Needs()
    depends_on_own_row_only: bool = True

    @abstractmethod
    def start(self, state: State, features: Features) -> LevelProposer:
        """What proposes the draft tokens of one generation, once the prompts have been read."""


class TreeDrafter(ABC):
    """A drafter that gives whole draft trees; made once, with weights and options.

    Attributes:
        depends_on_own_row_only: whether a row's drafts are a function of its own text, and of
            random numbers of its own. False where they depend on other texts too, such as the
            engine's earlier ones, or on the clock: exact under an acceptor that is ``seed_exact``,
            and refused with any other: a seed that is used again would correlate the drafts with
            its draws.
    """

    needs: Needs = Needs()
    depends_on_own_row_only: bool = True

    @abstractmethod
    def start(self, state: State, features: Features) -> TreeProposer:
        """What proposes the draft tokens of one generation, once the prompts have been read."""


class TreeFunction(TreeDrafter):
    """A drafter that keeps nothing: whole trees as a function of what is committed.

    Args:
        function: gives the tree of the step that comes. It serves every generation, so it must
            keep nothing between calls; what has to be kept is a :class:`TreeDrafter`'s.
    """

    def __init__(self, function: Callable[[State], DraftTree]) -> None:
        self._function = function

    def start(self, state: State, features: Features) -> TreeProposer:
        return _FunctionProposer(self._function)


class _FunctionProposer(TreeProposer):
    def __init__(self, function: Callable[[State], DraftTree]) -> None:
        self._function = function

    def tree(self, state: State) -> DraftTree:
        return self._function(state)

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing is kept by row."""


@runtime_checkable
class ReportsItself(Protocol):
    """A drafter that measures how well it predicts, so that a checkpoint that is read with wrong
    settings is told from a weak one."""

    def report(self, text: Tensor, start: int) -> DrafterReport:
        """Compare the drafter with its target on a text that the target wrote greedily.

        Called within ``torch.inference_mode()``; it draws no random number.

        Args:
            text: ``[1, T]`` int64.
            start: how many leading tokens are the prompt, at least one.
        """


@runtime_checkable
class KeepsTexts(Protocol):
    """A drafter that can draft from texts of earlier generations too.

    Attributes:
        keeps_texts: whether it does, with the options that it has.
    """

    @property
    def keeps_texts(self) -> bool: ...

    def forget_texts(self) -> None:
        """Draft as if there had been none. A benchmark asks for it before it decodes the same
        prompts again, so that it does not measure how its own answers are replayed."""


Drafter = LevelDrafter | TreeDrafter
Proposer = LevelProposer | TreeProposer


@runtime_checkable
class KeepsRows(Protocol):
    """A proposer or grower that can drop finished rows from what it keeps by row.

    Finished rows stay in the batch to the end with a proposer that cannot. A grower that keeps
    nothing by row needs no such method.
    """

    def keep_rows(self, rows: Tensor) -> None:
        """Keep what belongs to ``rows [m]`` int64. Called between steps."""


@runtime_checkable
class Resumable(Protocol):
    """A proposer that the next turn of a session may go on with, to read only what is new."""

    def cached_tokens(self) -> Tensor:
        """For each row how many leading tokens it has taken in for good, ``[B]`` int64."""

    def resume(self, state: State, features: Features) -> None:
        """Start again on rows that begin alike: what is kept of tokens before ``features.starts``
        still holds, the rest is to be forgotten."""


@runtime_checkable
class ReadsLater(Protocol):
    """A proposer that reads committed tokens when it is asked for a proposal, and not before."""

    @property
    def unread_tokens(self) -> int:
        """Committed tokens of the longest row that the next proposal has to read first."""


class TreeGrower(ABC):
    """Which nodes exist, which are expanded next and which are worth verifying, in one generation.

    Rows may leave the batch between steps: one that keeps something by row is told if it has the
    method of :class:`KeepsRows`.

    Attributes:
        levels: the most levels that the drafter is asked for in the step that comes; 0 for none.
    """

    levels: int

    @abstractmethod
    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        """Add one level below the frontier and choose the next frontier (expansion phase), or
        ``stop`` the builder."""

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        """The tree to verify (reranking phase); everything that was grown unless overridden.

        Called in every step that has room for draft tokens. Where no level was grown the builder
        holds the root alone, and the tree is one of plain decoding unless candidates from elsewhere
        (the text) are added.
        """
        return builder.tree()


@runtime_checkable
class LearnsFromSteps(Protocol):
    """A grower or proposer that learns from what was committed and how long it took."""

    def learn(self, step: Step, seconds: StepSeconds) -> None:
        """A step has been committed, drafted or plain. Called after the last step too, and before
        the proposer's ``commit``."""


@runtime_checkable
class LearnsFromTexts(Protocol):
    """A grower or proposer that keeps something of whole texts for later generations."""

    def learn_texts(self, texts: Sequence[Sequence[int]]) -> None:
        """The generation is over: its texts have ended, in a step or between steps, or the caller
        leaves them here. Called once, after the last ``learn``; not where a step has failed.

        A generation that nobody has closed is over when Python collects it, in whatever thread
        that happens.

        Args:
            texts: the new tokens of each row of the request, those of rows that have left the batch
                too.
        """


class TreePolicy(ABC):
    """How draft trees are grown from a drafter's proposals; made once, with options.

    Attributes:
        coupled: whether it looks at the noise of the target's draws, so that drafts depend on it.
            Exact under an acceptor that is ``seed_exact``, and refused with any other.
        depends_on_own_row_only: as of a :class:`TreeDrafter`.
    """

    coupled: bool = False
    depends_on_own_row_only: bool = True

    @abstractmethod
    def start(self, state: State, proposer: LevelProposer | None) -> TreeGrower:
        """What grows the trees of one generation.

        Args:
            proposer: of the draft tokens; None where the policy drafts from the text.
        """


class Verifier(ABC):
    """The target's distribution p at every node of a tree.

    Attributes:
        uses_cache: whether it reads and writes the state's cache.
    """

    uses_cache: ClassVar[bool] = True

    @abstractmethod
    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        """Run the target over the tree."""


class Acceptor(ABC):
    """Descends the tree, keeps a path and adds one bonus token.

    Attributes:
        lossless: whether the output keeps the target's distribution.
        supports: the kinds of draws it is exact for.
        seed_exact: whether it draws as plain decoding would, so that the same seed gives the same
            tokens.
    """

    lossless: ClassVar[bool] = True
    supports: ClassVar[frozenset[Draws]] = frozenset(Draws)
    seed_exact: ClassVar[bool] = False

    @abstractmethod
    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        """The accepted path of every row."""
