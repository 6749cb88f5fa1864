"""Verification: the target's distribution at the nodes of a tree, evaluated where asked for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor

from specdec.decoding.randomness import Key, Randomness, Stream
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification_inputs import VerificationInputs
from specdec.distribution import Distribution, at_least_float32, likeliest
from specdec.errors import PluginError
from specdec.models.hidden_states import HiddenStates
from specdec.request.processor_stages import Prefix
from specdec.request.stopping import StopRules

# The distributions of all nodes are evaluated at once up to this many logits: past it the nodes
# that no path visits cost more than evaluating one node after the other. A processor that sorts
# costs as much as several that do not.
MOST_LOGITS, MOST_LOGITS_ON_CPU, _SORTING = 1 << 23, 1 << 16, 8


class Verification:
    """One target forward over a draft tree.

    Attributes:
        tree: what was verified.
        hidden: the hidden states behind the logits, ``[B, N, H]``.
        logits: ``[B, N, V]``, the target's scores of the token that follows each node.
    """

    def __init__(
        self,
        inputs: VerificationInputs,
        tree: DraftTree,
        hidden: HiddenStates,
        logits: Tensor,
        companions: HiddenStates | None = None,
    ) -> None:
        self.tree, self.hidden, self.logits = tree, hidden, logits
        self._inputs, self._companions = inputs, companions
        self._asked: list[tuple[Tensor, Tensor, Tensor]] = []  # node, needed, processed scores

    @property
    def companions(self) -> HiddenStates:
        """The hidden states of the tree's companions, ``[B, M, H]``; their scores are
        ``target.logits`` of them.

        Raises:
            PluginError: the tree has none, or the verifier does not read them.
        """
        if self._companions is None:
            raise PluginError(
                "this verification has no companions: give the tree some, and read them in the "
                "verifier as TreeVerifier does (DraftTree.with_companions)"
            )
        return self._companions

    @property
    def active(self) -> Tensor:
        """Rows that are not finished: ``[B]`` bool."""
        return self._inputs.active

    @property
    def stopping(self) -> StopRules:
        """The rules that end rows."""
        return self._inputs.stopping

    @property
    def can_sync(self) -> bool:
        """Whether acceptors may read tensors: on a CPU, where that waits for nothing, and with
        processors for which the host reads at every output position anyway."""
        return self.logits.device.type == "cpu" or self._inputs.processors.by_row

    def distribution(self, node: Tensor, needed: Tensor) -> Distribution:
        """The target's distribution p of the token after ``node``, logits processors applied.

        Ask once for each output position, in order: a stateful processor then sees exactly the
        calls that plain decoding makes. (A stop string is found after the step: behind one it may
        see a few calls more.)

        Args:
            node: ``[B]`` int64.
            needed: ``[B]`` bool, rows that need theirs; the others' is undefined.
        """
        logits = self.logits.flatten(0, 1).index_select(0, self._first_node + node)
        processors = self._inputs.processors
        scores = processors.scores(logits, lambda: self._prefix(node, needed))
        if self._inputs.keeps_scores:
            self._asked.append((node, needed, scores))
        return processors.distribution(scores)

    @property
    def kept_scores(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The processed scores that were kept, ``[B, V]``, after which node and of which rows:
        both ``[B]``, as for :meth:`distribution`."""
        return self._asked

    def take_over(self, kept: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Keep those of another rank, which alone was asked."""
        device = self.logits.device
        self._asked += [
            (node.to(device), rows.to(device), own.to(device)) for node, rows, own in kept
        ]

    def logits_at(self, nodes: Tensor) -> Tensor:
        """The target's scores of the token that follows each of ``nodes [B, m]``: ``[B, m, V]``,
        float32 at least."""
        index = nodes[:, :, None].expand(-1, -1, self.logits.shape[-1])
        return at_least_float32(self.logits.gather(1, index))

    def scores_at(self, nodes: Tensor) -> Tensor:
        """The processed scores that :meth:`distribution` was made of at ``nodes [B, m]``:
        ``[B, m, V]``, float32 at least. Where it was not asked they are what a node's logits give.

        They are what was computed then: processors with a state are not called again.

        Raises:
            PluginError: they were not kept, and processors read the prefix.
        """
        scores, processors = self.logits_at(nodes), self._inputs.processors
        if self._asked:
            for node, needed, kept in self._asked:
                meant = (node[:, None] == nodes) & needed[:, None]
                scores = torch.where(meant[:, :, None], kept[:, None], scores)
            return scores
        if processors.reads_prefix:
            raise PluginError(
                "this verification did not keep the processed scores that it was asked for: a "
                "generation does where log-probabilities are asked for"
            )
        return processors.scores(scores.flatten(0, 1)).view_as(scores)

    @property
    def greedy(self) -> bool:
        """Whether every distribution is a point mass (temperature 0)."""
        return self._inputs.processors.greedy

    def draw(self, node: Tensor, needed: Tensor, randomness: Randomness, stream: Stream) -> Tensor:
        """The target's own draw of the token after ``node``: ``[B]`` int64.

        Ask as for :meth:`distribution`, of which it is drawn.

        Args:
            stream: ``TARGET`` for the draw that plain decoding makes at that position, ``ACCEPT``
                for one that no other step makes.
        """
        if stream is Stream.TARGET:
            key = Key(stream, self.position(node))
        else:
            key = Key(stream, self.root_position(), node)
        return randomness.categorical(self.distribution(node, needed), key)

    def drawn_everywhere(self, randomness: Randomness, stream: Stream) -> Tensor | None:
        """The same after every node at once, ``[B, N]`` int64, for
        :func:`~specdec.decoding.traversal.matching_path`.

        None where that would take longer than to ask node by node, or a processor reads a prefix.
        """
        processors = self._inputs.processors
        if processors.greedy:
            if processors.processors or processors.warpers:
                return None
            return likeliest(self.logits)
        if stream is not Stream.TARGET or processors.reads_prefix:
            return None
        most = MOST_LOGITS_ON_CPU if self.can_sync else MOST_LOGITS
        if self.logits.numel() * (_SORTING if processors.sorts else 1) > most:
            return None
        scores = processors.scores(self.logits.flatten(0, 1)).view_as(self.logits)
        first = Key(stream, self.root_position() + 1)
        tree = self.tree
        return randomness.categorical_ahead(
            Distribution.of(scores), first, tree.depths, tree.depth + 1
        )

    def position(self, node: Tensor) -> Tensor:
        """Index in the whole sequence of the token that follows ``node [B]``: ``[B]`` int64."""
        depth = self.tree.depths.gather(1, node[:, None]).squeeze(1)
        return self._inputs.lengths + depth

    @cached_property
    def _first_node(self) -> Tensor:
        rows = torch.arange(len(self.tree.tokens), device=self.tree.tokens.device)
        return rows * self.tree.size

    @cached_property
    def _root_position(self) -> Tensor:
        return self._inputs.lengths - 1

    def root_position(self) -> Tensor:
        """Index in the whole sequence of the root: ``[B]`` int64."""
        return self._root_position

    def _prefix(self, node: Tensor, needed: Tensor) -> Prefix:
        tree, inputs = self.tree, self._inputs
        index = node[:, None, None].expand(-1, 1, tree.size)
        on_path = tree.ancestors.gather(1, index).squeeze(1)
        padding = inputs.tokens[:, :1].expand(-1, tree.depth + 1)
        tokens = torch.cat([inputs.tokens[:, : inputs.span], padding], dim=1)
        spare = inputs.span + tree.depth
        slot = torch.where(on_path, self.root_position()[:, None] + tree.depths, spare)
        tokens = tokens.scatter(1, slot, tree.tokens)[:, :spare]
        return Prefix(tokens, self.position(node), needed)
