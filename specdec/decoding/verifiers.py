"""The two verifiers: one forward over the tree, and path by path as oracle and fallback."""

from __future__ import annotations

import torch

from specdec.decoding.interfaces import Verifier
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.models.hf_target import HFTarget
from specdec.models.hidden_states import HiddenStates


class TreeVerifier(Verifier):
    """One target forward over all nodes: each attends to the committed tokens and its own path.

    Source: SpecInfer (arXiv 2305.09781), tree attention.
    """

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        assert state.cache is not None
        read = tree.with_companions
        positions = state.root_position()[:, None] + read.depths
        hidden = target.forward(read.tokens, positions, read.ancestors, state.cache)
        return _verification(target, state, tree, hidden)


class PathVerifier(Verifier):
    """Each node's path as a plain sequence of its own, recomputed from the first token.

    Slow, and true for any causal model: it uses neither a cache nor a tree mask.
    """

    uses_cache = False

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        read, rows, ends = tree.with_companions, [], []
        for row, length in enumerate(state.host_lengths):
            committed = state.tokens[row, : length - 1]
            for node in range(read.size):
                path = read.tokens[row, read.ancestors[row, node]]
                rows.append(torch.cat([committed, path])[: target.context_limit])
                ends.append(len(rows[-1]) - 1)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        hidden = target.read(padded)
        last = torch.tensor(ends, device=padded.device)[:, None]

        def at_ends(x: torch.Tensor) -> torch.Tensor:
            picked = x.gather(1, last[:, :, None].expand(-1, -1, x.shape[-1]))
            return picked.view(state.rows, read.size, -1)

        own = HiddenStates(at_ends(hidden.last), tuple(at_ends(each) for each in hidden.aux))
        return _verification(target, state, tree, own)


def _verification(
    target: HFTarget, state: State, tree: DraftTree, read: HiddenStates
) -> Verification:
    """Scores of the tree's nodes; of companions the hidden states are enough."""
    if tree.companions is None:
        return Verification(state.verification_inputs, tree, read, target.logits(read.last))
    hidden, companions = read.split(tree.size)
    return Verification(
        state.verification_inputs, tree, hidden, target.logits(hidden.last), companions
    )
