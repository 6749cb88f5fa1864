"""The drafter ``lookahead``: a tree from the n-gram pool, and the window beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.decoding.companions import Companions
from specdec.decoding.interfaces import Features, TreeDrafter, TreeProposer
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.models.hf_target import HFTarget
from specdec_plugins.lookahead.pool import Branches, NgramPool, branches
from specdec_plugins.lookahead.window import Window


class LookaheadOptions(BaseModel):
    """Options of the drafter ``lookahead``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Window and n-gram together stay below what an engine checks beyond a text's end.
    window: int = Field(15, ge=2, le=40, description="W: columns of the window")
    ngram: int = Field(
        5, ge=3, le=16, description="N: tokens of an n-gram; the window has one level less"
    )
    candidates: int = Field(
        15, ge=1, le=128, description="G: n-grams verified in a step, and kept for a first token"
    )
    prompt: bool = Field(False, description="whether the pool begins with the prompt's n-grams")


class LookaheadDrafter(TreeDrafter):
    """Drafts the n-grams that begin with the last committed token, from a pool of what the target
    made of its window in earlier steps.

    The window's tokens are the tree's companions: the target reads them in the forward that
    verifies the tree, and they are never accepted. At any temperature the window goes on with the
    target's likeliest tokens, so that drafts are a function of the text's steps, and no random
    number is drawn.

    Source: Fu et al. 2024, lookahead decoding (arXiv 2402.02057); W, N and G as there for a model
    of 7 billion parameters.
    """

    def __init__(self, options: LookaheadOptions, target: HFTarget) -> None:
        self.options, self.target = options, target

    def start(self, state: State, features: Features) -> LookaheadProposer:
        return LookaheadProposer(self.options, self.target, state)


class LookaheadProposer(TreeProposer):
    """The windows and pools of one generation. They are kept by prompt, not by row."""

    def __init__(self, options: LookaheadOptions, target: HFTarget, state: State) -> None:
        self._options, self._target = options, target
        # Where every shape is compiled, companions, scores and trees have one size each.
        self._fixed = target.acceleration.fixed_shapes
        self._most, self._scored = Window.most(options.window, options.ngram)
        self._newest = slice(0)
        self._roots = {row: state.prompts[row][-1] for row in state.request_rows}
        self._windows: dict[int, Window] = {}
        self._pools: dict[int, NgramPool] = {}
        for request_row in state.request_rows:
            prompt, width = state.prompts[request_row], options.window + options.ngram
            self._windows[request_row] = Window(prompt[-width:], options.window, options.ngram)
            self._pools[request_row] = pool = NgramPool(options.candidates)
            if options.prompt:
                for end in range(options.ngram, len(prompt) + 1):
                    pool.add(prompt[end - options.ngram : end])

    def tree(self, state: State) -> DraftTree:
        rows = zip(state.request_rows, state.finish_reasons, strict=True)
        found = [
            branches([] if ended else self._pools[row].candidates(self._roots[row]))
            for row, ended in rows
        ]
        tree = self._tree(state.root(), found)
        return replace(tree, companions=self._companions(state.request_rows, tree))

    def _tree(self, roots: Tensor, found: Sequence[Branches]) -> DraftTree:
        """The branches of each row below its root, filled up to one size with invalid nodes."""
        depth = self._options.ngram - 1
        size = max(len(own.tokens) for own in found)
        if self._fixed:
            size = self._options.candidates * depth
        if size == 0:
            return DraftTree.root(roots)

        def filled(columns: list[list[int]], value: int) -> Tensor:
            rows = [column + [value] * (size - len(column)) for column in columns]
            return torch.tensor(rows, device=roots.device)

        children = Counter((row, above) for row, own in enumerate(found) for above in own.parents)
        tokens = filled([own.tokens for own in found], 0)
        parents = filled([own.parents for own in found], -1) + 1  # the root is node 0
        shares = [own.shares + [0.0] * (size - len(own.shares)) for own in found]
        log_value = torch.tensor(shares, device=roots.device).log()
        root = DraftTree.root(roots)
        return DraftTree(
            tokens=torch.cat([root.tokens, tokens], dim=1),
            parents=torch.cat([root.parents, parents], dim=1),
            log_value=torch.cat([root.log_value, log_value], dim=1),
            valid=torch.cat([root.valid, log_value > -torch.inf], dim=1),
            depth=depth,
            branching=max(children.values(), default=0),
        )

    def _companions(self, request_rows: Sequence[int], tree: DraftTree) -> Companions:
        guesses = [self._windows[request_row].guesses() for request_row in request_rows]
        _, parents, depth, newest = guesses[0]  # all windows have one form
        filling = [0] * (self._most - len(parents) if self._fixed else 0)
        self._newest = slice(len(parents) - newest, len(parents))
        rows = [each.tokens + filling for each in guesses]
        tokens = torch.tensor(rows, device=tree.tokens.device)
        nodes = [0 if parent < 0 else tree.size + parent for parent in parents]
        above = torch.tensor(nodes + filling, device=tokens.device)  # what fills up hangs from 0
        return Companions(tokens, above.expand_as(tokens), depth)

    def commit(self, step: Step) -> None:
        roots = [self._roots[request_row] for request_row in step.request_rows]
        for request_row, new in zip(step.request_rows, step.new_tokens, strict=True):
            if new:
                self._roots[request_row] = new[-1]
        if step.tree.companions is None:  # no row had room for drafts
            return
        start, end = self._newest.start, self._newest.stop
        first = end - self._scored if self._fixed else start
        read = step.verification.companions.last[:, first:end]
        made = self._target.logits(read).argmax(dim=-1)[:, start - first :].tolist()
        for request_row, root, tokens in zip(step.request_rows, roots, made, strict=True):
            for ngram in self._windows[request_row].take(root, tokens):
                self._pools[request_row].add(ngram)

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing is kept by row."""
