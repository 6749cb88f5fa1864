"""The expansion phase that grows a draft tree and the reranking phase that prunes it.

Policies are thin: they call the primitives here. Everything is tensor operations of static shape;
the only host values are the sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from specdec.errors import PluginError
from specdec.law import at_least_float32
from specdec.randomness import Key, Stream
from specdec.tree import DraftTree, Draws, SampledFrom, label

if TYPE_CHECKING:
    from specdec.state import State

NEVER = float("-inf")


@dataclass(frozen=True)
class Frontier:
    """The nodes that the drafter is asked to expand next.

    Attributes:
        depth: their level; 0 for the root.
        tokens: ``[B, n]`` int64.
        nodes: ``[B, n]`` int64, their indices among all nodes grown so far.
        parents: ``[B, n]`` int64, the rows of the frontier before this one that they hang from.
        root_position: ``[B, 1]`` int64, the root's position in the sequence.
        ancestors: ``[B, n, F]`` bool over every frontier row so far in order (root first, this
            frontier last): each row's path and itself.
        log_value: ``[B, n]``.
        history: the tokens ``[B, n]`` of every frontier so far, this one last; side by side they
            are the columns of ``ancestors``.
    """

    depth: int
    tokens: Tensor
    nodes: Tensor
    parents: Tensor
    root_position: Tensor
    ancestors: Tensor
    log_value: Tensor
    history: tuple[Tensor, ...]

    @property
    def positions(self) -> Tensor:
        """``[B, n]`` int64, their positions in the sequence."""
        return (self.root_position + self.depth).expand_as(self.tokens)

    @property
    def width(self) -> int:
        """Nodes n per row."""
        return self.tokens.shape[1]

    def path(self, row: int, index: int) -> list[int]:
        """The draft tokens from the root to node ``index`` of a batch row, root included.

        Reads from the device: for drafters that work on the host.
        """
        tokens = torch.cat([level[row] for level in self.history])
        taken: list[int] = tokens[self.ancestors[row, index]].tolist()
        return taken


@dataclass(frozen=True)
class Proposal:
    """The draft law at every frontier node.

    Attributes:
        logits: ``[B, n, C]`` floating point, normalised or not; ``-inf`` where the drafter has no
            opinion, and a row that is all ``-inf`` grows no children.
        token_ids: ``[C]`` or ``[B, n, C]`` int64, what the columns stand for; None for all of V.
    """

    logits: Tensor
    token_ids: Tensor | None = None

    @property
    def log_q(self) -> Tensor:
        """``[B, n, C]`` float32 at least, normalised."""
        wide = at_least_float32(self.logits)
        return wide - _logsumexp(wide)

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        """The k likeliest tokens of each node.

        Returns:
            ``log_q [B, n, k]``, descending, and tokens ``[B, n, k]`` int64; where C < k the rest is
            ``-inf``.
        """
        wide = at_least_float32(self.logits)
        best = wide.topk(min(k, wide.shape[-1]), dim=-1)
        log_q, tokens = best.values - _logsumexp(wide), self.tokens(best.indices)
        missing = (0, k - wide.shape[-1])
        if missing[1] > 0:
            return pad(log_q, missing, value=NEVER), pad(tokens, missing)
        return log_q, tokens

    def tokens(self, columns: Tensor) -> Tensor:
        """The token ids at ``columns [B, n, k]``."""
        if self.token_ids is None:
            return columns
        if self.token_ids.dim() == 1:
            return self.token_ids[columns]
        return self.token_ids.gather(-1, columns)


def _logsumexp(logits: Tensor) -> Tensor:
    """``[..., 1]``; 0 where every entry is ``-inf``, so that such a row stays ``-inf``, not NaN."""
    total = logits.logsumexp(dim=-1, keepdim=True)
    return total.masked_fill(total == NEVER, 0.0)


class Growth:
    """The candidates of one expansion phase, in level order, and the frontier to expand next.

    Args:
        state: the rows being decoded.
    """

    def __init__(self, state: State) -> None:
        root = state.root()
        self.state = state
        self.size = 1
        self.depth = 0
        self.branching = 0
        self._draws = Draws.POINT
        self._laws: list[tuple[Tensor, Tensor]] = []
        self._tokens = [root[:, None]]
        self._parents = [torch.full_like(root[:, None], -1)]
        self._values = [torch.zeros_like(root[:, None], dtype=torch.float32)]
        self._level_start = 0
        self.frontier = Frontier(
            depth=0,
            tokens=root[:, None],
            nodes=torch.zeros_like(root[:, None]),
            parents=torch.zeros_like(root[:, None]),
            root_position=state.root_position()[:, None],
            ancestors=torch.ones_like(root[:, None, None], dtype=torch.bool),
            log_value=self._values[0],
            history=(root[:, None],),
        )
        self._rows_of_level = self._parents[0]

    def add(self, tokens: Tensor, rows: Tensor, log_value: Tensor, *, branching: int) -> None:
        """Append one level of candidates.

        Args:
            tokens: ``[B, m]`` int64.
            rows: ``[m]`` or ``[B, m]`` int64, the frontier row that each hangs from.
            log_value: ``[B, m]``; ``-inf`` marks a candidate that does not exist.
            branching: the most candidates that hang from one frontier row.

        Whatever was sampled before, the tree is ``POINT`` from here on.
        """
        self._draws, self._laws = Draws.POINT, []
        self._append(tokens, rows, log_value, branching)

    def _append(self, tokens: Tensor, rows: Tensor, log_value: Tensor, branching: int) -> None:
        if self.depth != self.frontier.depth:
            raise PluginError("this frontier has been expanded: choose the next one with advance")
        self._rows_of_level = rows.expand_as(tokens)
        self._tokens.append(tokens)
        self._parents.append(self.frontier.nodes.gather(1, self._rows_of_level))
        self._values.append(log_value)
        self._level_start = self.size
        self.size += tokens.shape[1]
        self.depth += 1
        self.branching = max(self.branching, branching)

    def advance(self, chosen: Tensor) -> None:
        """Make ``chosen`` (``[n]`` or ``[B, n]`` columns of the last level) the next frontier."""
        before, tokens, values = self.frontier, self._tokens[-1], self._values[-1]
        chosen = chosen.to(tokens.device).expand(tokens.shape[0], -1)
        parents = self._rows_of_level.gather(1, chosen)
        n, seen = chosen.shape[1], before.ancestors.shape[2]
        above = before.ancestors.gather(1, parents[:, :, None].expand(-1, -1, seen))
        itself = torch.eye(n, dtype=torch.bool, device=above.device).expand(len(above), -1, -1)
        picked = tokens.gather(1, chosen)
        self.frontier = Frontier(
            depth=before.depth + 1,
            tokens=picked,
            nodes=chosen + self._level_start,
            parents=parents,
            root_position=before.root_position,
            ancestors=torch.cat([above, itself], dim=2),
            log_value=values.gather(1, chosen),
            history=(*before.history, picked),
        )

    def advance_best(self, k: int) -> None:
        """Make the k candidates of highest value the next frontier, ties to the first."""
        order = self._values[-1].sort(dim=1, descending=True, stable=True).indices
        self.advance(order[:, :k])

    def tree(self) -> DraftTree:
        """Every candidate, in the order grown."""
        values = torch.cat(self._values, dim=1)
        tree = DraftTree(
            tokens=torch.cat(self._tokens, dim=1),
            parents=torch.cat(self._parents, dim=1),
            log_value=values,
            valid=values > NEVER,
            depth=self.depth,
            branching=self.branching,
        )
        if self._draws is Draws.POINT:
            return tree
        row = torch.zeros_like(tree.tokens)
        for entry, (node, _) in enumerate(self._laws):
            row.scatter_(1, node[:, None], entry)
        q = torch.stack([law for _, law in self._laws], dim=1)
        return label(tree, self._draws, SampledFrom(q=q, row=row))


def grow_level(growth: Growth, proposal: Proposal, k: int, *, keep: Tensor | None = None) -> None:
    """Give every frontier node its k likeliest tokens as children, valued by their path.

    Args:
        keep: ``[m]`` int64, which of the ``n * k`` children exist (row-major); None for all.

    Source: EAGLE-2 (arXiv 2406.16858), section 4.1: value = product of confidences on the path.
    """
    log_q, tokens = proposal.top(k)
    batch, n, k = tokens.shape
    values = (growth.frontier.log_value[:, :, None] + log_q).reshape(batch, n * k)
    flat = tokens.reshape(batch, n * k)
    rows = torch.arange(n, device=flat.device).repeat_interleave(k)
    if keep is not None:
        keep = keep.to(flat.device)
        flat, values, rows = flat[:, keep], values[:, keep], rows[keep]
    growth.add(flat, rows, values, branching=k)


def sample(growth: Growth, proposal: Proposal, n: int) -> None:
    """Give every frontier node n children drawn independently from the draft law.

    The law is q under the request's own temperature and truncation; what is drawn from is what is
    recorded. The tree is labelled ``IID``.
    """
    _sample(growth, proposal, n, Draws.IID)


def sample_without_replacement(growth: Growth, proposal: Proposal, n: int) -> None:
    """Give every frontier node n distinct children, drawn one after the other.

    Each draw is from q without the tokens drawn before it. The tree is labelled
    ``WITHOUT_REPLACEMENT``; a node whose law has fewer than n tokens gets fewer children.
    """
    _sample(growth, proposal, n, Draws.WITHOUT_REPLACEMENT)


def _sample(growth: Growth, proposal: Proposal, n: int, draws: Draws) -> None:
    if growth.size > 1 and growth._draws is not draws:
        raise PluginError(f"a tree of {growth._draws.value} draws cannot take {draws.value} ones")
    growth._draws = draws
    state, frontier = growth.state, growth.frontier
    q = state.draft_law(vocabulary_logits(proposal, state.vocab_size)).probs
    abstained = (proposal.logits == NEVER).all(dim=-1)
    tokens, values = [], []
    for index in range(frontier.width):
        left = law = q[:, index]
        node = frontier.nodes[:, index]
        growth._laws.append((node, law))
        for draw in range(n):
            key = Key(Stream.DRAFT, state.root_position(), node, draw)
            token = state.sample(left, key)[:, None]
            confidence = law.gather(1, token)
            exists = left.gather(1, token) > 0
            exists &= ~abstained[:, index, None]
            value = frontier.log_value[:, index, None] + confidence.log()
            values.append(value.masked_fill(~exists, NEVER))
            tokens.append(token)
            if draws is Draws.WITHOUT_REPLACEMENT:
                left = left.scatter(1, token, 0.0)
    rows = torch.arange(frontier.width, device=q.device).repeat_interleave(n)
    growth._append(torch.cat(tokens, dim=1), rows, torch.cat(values, dim=1), n)


def vocabulary_logits(proposal: Proposal, size: int) -> Tensor:
    """The proposal's logits over all of V: ``[B, n, V]``."""
    if proposal.token_ids is None:
        return proposal.logits
    full = proposal.logits.new_full((*proposal.logits.shape[:2], size), NEVER)
    return full.scatter(2, proposal.token_ids.expand_as(proposal.logits), proposal.logits)


def top_by_value(growth: Growth, budget: int) -> DraftTree:
    """The reranking phase: the ``budget`` candidates of highest value, in the order grown.

    Ties go to the candidate grown first, which is the shallower one, so the kept set is closed
    under parents. A sampled tree that is pruned becomes ``POINT``.

    Source: EAGLE-2, section 4.2.
    """
    everything = growth.tree()
    if budget >= growth.size - 1:
        return everything
    order = everything.log_value[:, 1:].sort(dim=1, descending=True, stable=True).indices
    kept = (order[:, :budget] + 1).sort(dim=1).values
    kept = torch.cat([torch.zeros_like(kept[:, :1]), kept], dim=1)
    old_parents = everything.parents.gather(1, kept)
    parents = torch.searchsorted(kept, old_parents)
    parents[:, 0] = -1
    return DraftTree(
        tokens=everything.tokens.gather(1, kept),
        parents=parents,
        log_value=everything.log_value.gather(1, kept),
        valid=everything.valid.gather(1, kept),
        depth=everything.depth,
        branching=everything.branching,
    )
