"""Probe of the check at load: the forwards of decoding, and the model's own over each path."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from specdec.acceleration.agreement import relative_error, relative_errors
from specdec.kv_cache.keyword import cache_keyword
from specdec.models.hf_target import HFTarget

# Node 0 is the root. Siblings, cousins, and three leaves three levels down.
PARENTS = (-1, 0, 0, 1, 1, 2, 3, 4, 5)
PATHS = ((0, 1, 3, 6), (0, 1, 4, 7), (0, 2, 5, 8))
_DEPTH = 3
# Positions before the root that are compared too: the shortest prompt has as many.
_BEFORE = 2
_COMPARED = _BEFORE + _DEPTH + 1


@dataclass(frozen=True)
class Probe:
    """Prompts of different length, with the same tree of different tokens below each.

    Attributes:
        prompts: for each row its tokens ``[n]`` int64; the last one is the root.
        nodes: ``[B, 9]`` int64, the tokens of the tree.
        paths: the nodes of each path that the model itself is run over; the last one is decoded.
    """

    prompts: list[Tensor]
    nodes: Tensor
    paths: Sequence[Sequence[int]]

    @classmethod
    def make(
        cls, target: HFTarget, lengths: Sequence[int], paths: Sequence[Sequence[int]] = PATHS
    ) -> Probe:
        """Prompts of these lengths, at least three tokens each."""
        strides = zip(lengths, (11, 5), strict=True)
        prompts = [tokens_of(target, n, stride) for n, stride in strides]
        rows = range(len(lengths))
        nodes = torch.stack([tokens_of(target, len(PARENTS), 3 + row) for row in rows])
        nodes[:, 0] = torch.stack([prompt[-1] for prompt in prompts])
        return cls(prompts, nodes, paths)

    def own(self, target: HFTarget) -> list[Tensor]:
        """The logits of the model's own forwards: for each row ``[paths, 2 + 4, V]``, two positions
        before the root and the path from the root on."""
        return [own_logits(target, texts, _COMPARED) for texts in self._texts()]

    def rounding(self, target: HFTarget, own: Sequence[Tensor]) -> float:
        """How far the model's forwards with transformers' own cache are from ``own``: two right
        results, which only rounding keeps apart."""
        cache = DynamicCache()
        texts = self._texts()[0]
        split = texts.shape[1] - _COMPARED
        pieces = (texts[:, :split], texts[:, split:-1], texts[:, -1:])
        named = {cache_keyword(type(target.model)): cache}
        logits = [target.model(input_ids=piece, use_cache=True, **named).logits for piece in pieces]
        return relative_error(torch.cat(logits[1:], dim=1), own[0])

    def errors(self, target: HFTarget, own: Sequence[Tensor]) -> Tensor:
        """How far every forward of decoding is from ``own``, all rows together and one alone:
        relative errors ``[n]``."""
        groups = [list(range(len(self.prompts))), [0]]
        return torch.cat([self._decode(target, own, rows) for rows in groups])

    def _texts(self) -> list[Tensor]:
        """For each row the prompt and each path, ``[paths, n + 3]`` int64."""
        return [
            torch.stack([torch.cat([prompt[:-1], nodes[list(path)]]) for path in self.paths])
            for prompt, nodes in zip(self.prompts, self.nodes, strict=True)
        ]

    def _decode(self, target: HFTarget, own: Sequence[Tensor], rows: list[int]) -> Tensor:
        prompts, nodes = [self.prompts[row] for row in rows], self.nodes[rows]
        before = torch.stack([own[row][0, :_BEFORE] for row in rows])
        below = torch.stack([own[row][:, _BEFORE:] for row in rows])
        errors: list[Tensor] = []

        def compare(hidden: Tensor, wanted: Tensor) -> None:
            errors.append(relative_errors(target.logits(hidden), wanted).flatten())

        context = pad_sequence([prompt[:-1] for prompt in prompts], batch_first=True)
        lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=target.device)
        longest = context.shape[1]
        cache = target.new_cache(len(rows), longest + len(PARENTS))
        last = lengths[:, None] - _BEFORE + torch.arange(_BEFORE, device=target.device)

        read = target.prefill(context, cache)
        cache.advance(lengths, longest)
        compare(read.gather(last).last, before)

        tree_mask, depths = _ancestors(target.device)
        tree = target.forward(
            nodes, lengths[:, None] + depths, tree_mask.expand(len(rows), -1, -1), cache
        )
        for index, path in enumerate(self.paths):
            compare(tree.last[:, list(path)], below[:, index])

        *kept, bonus = self.paths[-1]
        scratch = torch.tensor([kept], device=target.device).expand(len(rows), -1)
        cache.keep(scratch, torch.full_like(lengths, len(kept)), longest + len(kept))
        alone = torch.ones(len(rows), 1, 1, dtype=torch.bool, device=target.device)
        step = target.forward(nodes[:, [bonus]], lengths[:, None] + _DEPTH, alone, cache)
        compare(step.last, below[:, -1, -1:])

        cache.truncate(lengths - _BEFORE, longest - _BEFORE)
        causal = torch.ones(_BEFORE, _BEFORE, dtype=torch.bool, device=target.device).tril()
        again = target.forward(
            context.gather(1, last), last, causal.expand(len(rows), -1, -1), cache
        )
        compare(again.last, before)
        return torch.cat(errors)


def tokens_of(target: HFTarget, n: int, stride: int) -> Tensor:
    """``n`` different tokens ``[n]`` int64, as far as the vocabulary allows."""
    size = min(target.vocab_size, target.model.get_input_embeddings().weight.shape[0])
    tokens: Tensor = (torch.arange(1, n + 1, device=target.device) * (7919 * stride) + 13) % size
    return tokens


def own_logits(target: HFTarget, tokens: Tensor, last: int) -> Tensor:
    """The whole model's logits of the last positions: ``[B, last, V]`` for ``tokens [B, n]``."""
    takes = inspect.signature(target.model.forward).parameters
    keep = {"logits_to_keep": last} if "logits_to_keep" in takes else {}
    logits: Tensor = target.model(input_ids=tokens, use_cache=False, **keep).logits
    return logits[:, -last:]


def _ancestors(device: torch.device) -> tuple[Tensor, Tensor]:
    """What each node of the tree attends to, ``[9, 9]`` bool, and its depth ``[9]``."""
    tree_mask = torch.eye(len(PARENTS), dtype=torch.bool)
    for node, parent in enumerate(PARENTS):
        if parent >= 0:
            tree_mask[node] |= tree_mask[parent]
    return tree_mask.to(device), (tree_mask.sum(1) - 1).to(device)
