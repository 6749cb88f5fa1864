"""The four roles that a strategy is made of. Hooks choose the parts; plain calls run them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.proposal import Proposal
from specdec.decoding.randomness import Randomness
from specdec.decoding.traversal import Acceptance
from specdec.decoding.tree import DraftTree, Draws
from specdec.decoding.tree_builder import TreeBuilder
from specdec.decoding.verification import Verification
from specdec.errors import PluginError
from specdec.models.hf_target import HFTarget, Hidden

if TYPE_CHECKING:
    from specdec.decoding.metrics import Clock
    from specdec.decoding.state import State, Step


@dataclass(frozen=True)
class Needs:
    """What a drafter wants from the target's forwards, declared and checked at set-up.

    Attributes:
        hidden: whether it reads hidden states at all.
        aux_layers: layers whose hidden states it reads besides the last (0 is the embedding).
    """

    hidden: bool = False
    aux_layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Features:
    """The target's hidden states of the tokens that a prefill read.

    Attributes:
        hidden: ``[B, n, H]``; row b's entry i belongs to the token at position ``starts[b] + i``,
            up to the token before the root; the rest is padding.
        starts: for each row the position of its first entry; 0 unless a cached prefix was kept.
    """

    hidden: Hidden
    starts: Sequence[int]


class Drafter:
    """The draft distribution q at a set of nodes (:meth:`propose`), or whole draft trees
    (:meth:`tree`).

    A generation works on a shallow copy of the drafter: attributes set in :meth:`begin` belong to
    that generation alone, what the factory set (weights, options) is shared.
    """

    needs: ClassVar[Needs] = Needs()

    def begin(self, state: State, features: Features) -> None:
        """The prompts have been read. Called once, before the first step.

        When ``features.starts`` is not 0, this drafter has served the row before: what it keeps of
        tokens before the start still holds, the rest is to be forgotten.
        """

    def propose(self, frontier: Frontier) -> Proposal:
        """The draft distribution at every frontier node. Frontiers come level by level, the root
        first."""
        raise PluginError(f"{type(self).__name__} gives whole trees: it takes no policy")

    def commit(self, step: Step) -> None:
        """A step has been committed: take its tokens and features, forget the drafts."""

    def keep_rows(self, rows: Tensor) -> None:
        """Rows have left the batch: keep what belongs to ``rows [m]`` int64. Called between steps.

        A drafter without this method keeps finished rows in the batch until the last one ends.
        """
        raise NotImplementedError

    def cached_tokens(self) -> Tensor | None:
        """For each row how many leading tokens it has taken in for good, ``[B]`` int64.

        A later turn that shares them starts reading there. None: it keeps nothing by token.
        """
        return None

    def tree(self, state: State) -> DraftTree:
        """A whole draft tree at once, for drafters that need no policy (n-gram, lookup)."""
        raise PluginError(f"{type(self).__name__} drafts node by node: it needs a policy")


class TreePolicy(ABC):
    """Which nodes exist, which are expanded next and which are worth verifying.

    A generation works on a shallow copy of the policy, as of the drafter: what the factory made is
    shared, so a policy that learns keeps what it learns in an object made there.

    Attributes:
        levels: the most levels it grows in the step that comes; 0 for a step of plain decoding.
        coupled: whether it looks at the noise of the target's draws, so that drafts depend on it.
            Exact under an acceptor that is ``seed_exact``, and refused with any other.
    """

    levels: int
    coupled: bool = False

    def begin(self, target: HFTarget, state: State, clock: Clock) -> None:  # noqa: B027
        """The prompts have been read. Called once, before the first step.

        Args:
            clock: seconds by phase, added up over the generation.
        """

    def tree(self, state: State) -> DraftTree | None:
        """A whole draft tree for the step that comes, for which the drafter is not asked.

        None: a tree is to be grown. A network drafter then reads what it has not been asked about.
        """
        return None

    @abstractmethod
    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        """Add one level below the frontier and choose the next frontier (expansion phase)."""

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        """The tree to verify (reranking phase); everything that was grown unless overridden."""
        return builder.tree()

    def commit(self, step: Step) -> None:  # noqa: B027
        """A step has been committed, drafted or plain: a policy may learn from it."""


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
    """Walks the tree, keeps a path and adds one bonus token.

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
