"""The two verifiers: one forward over the tree, and path by path as oracle and fallback."""

from __future__ import annotations

import torch

from specdec.decoding.interfaces import Verifier
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.models.hf_target import HFTarget, Hidden


class TreeVerifier(Verifier):
    """One target forward over all nodes: each attends to the committed tokens and its own path.

    Source: SpecInfer (arXiv 2305.09781), tree attention.
    """

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        assert state.cache is not None
        positions = state.root_position()[:, None] + tree.depths
        hidden = target.forward(tree.tokens, positions, tree.ancestors, state.cache)
        return Verification(state.committed, tree, hidden, target.logits(hidden.last))


class PathVerifier(Verifier):
    """Each node's path as a plain sequence of its own, recomputed from the first token.

    Slow, and true for any causal model: it uses neither a cache nor a tree mask.
    """

    uses_cache = False

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        rows, ends = [], []
        for row, length in enumerate(state.host_lengths):
            committed = state.tokens[row, : length - 1]
            for node in range(tree.size):
                path = tree.tokens[row, tree.ancestors[row, node]]
                rows.append(torch.cat([committed, path])[: target.context_limit])
                ends.append(len(rows[-1]) - 1)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        hidden = target.read(padded)
        last = torch.tensor(ends, device=padded.device)[:, None]

        def at_ends(x: torch.Tensor) -> torch.Tensor:
            picked = x.gather(1, last[:, :, None].expand(-1, -1, x.shape[-1]))
            return picked.view(state.rows, tree.size, -1)

        own = Hidden(at_ends(hidden.last), tuple(at_ends(each) for each in hidden.aux))
        return Verification(state.committed, tree, own, target.logits(own.last))
