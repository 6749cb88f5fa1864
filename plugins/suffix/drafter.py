"""The drafter ``suffix``: draft trees of what followed the last tokens before, by frequency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.decoding.clock import StepSeconds
from specdec.decoding.interfaces import Features, TreeDrafter, TreeProposer
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import MOST_LEVELS, MOST_NODES, DraftTree
from specdec.drafting.draft_size_by_cost import DraftSizeByCost
from specdec.models.hf_target import HFTarget
from specdec_plugins.suffix.earlier_texts import EarlierTexts
from specdec_plugins.suffix.suffix_text import Node, SuffixText


class SuffixOptions(BaseModel):
    """Options of the drafter ``suffix``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_match: int = Field(
        8,
        ge=1,
        le=64,
        description="last tokens to look for in what came before, at most (with depth: vLLM's "
        "suffix_decoding_max_tree_depth)",
    )
    depth: int = Field(
        16,
        ge=1,
        le=MOST_LEVELS,
        description="the most levels of draft tokens in a step (vLLM: num_speculative_tokens)",
    )
    budget: int = Field(
        32, ge=1, le=MOST_NODES, description="the most draft tokens verified in a step"
    )
    min_probability: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="draft no token that is right with a smaller probability (vLLM: "
        "suffix_decoding_min_token_prob)",
    )
    earlier_tokens: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="tokens of the engine's earlier answers to draft from too; 0: none; "
        "with the acceptor match alone (vLLM, in requests: suffix_decoding_max_cached_requests)",
    )
    size_by_cost: bool = Field(
        True,
        description="draft only as many tokens as measured step times justify; false: every token "
        "above the smallest probability, within the other limits (the default with acceptors "
        "other than match)",
    )


class SuffixDrafter(TreeDrafter):
    """Drafts a tree of what followed the longest match of the last tokens, each token valued by
    how often it did; as many draft tokens as pay
    (:class:`~specdec.drafting.draft_size_by_cost.DraftSizeByCost`).

    The draft tokens are the likeliest, not drawn: their q is a point mass.

    Source: SuffixDecoding (Oliaro et al. 2024, arXiv 2411.04975).
    """

    def __init__(self, options: SuffixOptions, target: HFTarget) -> None:
        self.options, self.depends_on_own_row_only = (
            options,
            not (options.size_by_cost or options.earlier_tokens),
        )
        # Where every size is compiled, all trees have one.
        self._least = options.budget if target.acceleration.fixed_shapes else 0
        self._draft_size = DraftSizeByCost() if options.size_by_cost else None
        self._earlier = (
            EarlierTexts(options.earlier_tokens, options.max_match)
            if options.earlier_tokens
            else None
        )

    def start(self, state: State, features: Features) -> SuffixProposer:
        if self._earlier is not None:
            self._earlier.take_in()
        return SuffixProposer(self.options, self._draft_size, self._earlier, self._least, state)

    @property
    def keeps_texts(self) -> bool:
        return self._earlier is not None

    def forget_texts(self) -> None:
        """Forget the engine's earlier answers."""
        if self._earlier is not None:
            self._earlier.forget()


class SuffixProposer(TreeProposer):
    """The drafts of one generation. Texts are kept by prompt, so rows may leave the batch.

    Args:
        draft_size: what is known of costs; None if all that is likely is to be drafted.
        earlier: the engine's earlier texts, and where those of this generation go.
        least: draft tokens that a tree is filled up to, where it has any.
    """

    def __init__(
        self,
        options: SuffixOptions,
        draft_size: DraftSizeByCost | None,
        earlier: EarlierTexts | None,
        least: int,
        state: State,
    ) -> None:
        self._options, self._draft_size, self._earlier = options, draft_size, earlier
        self._least, self._state = least, state
        index = earlier.index if earlier else None
        self._texts = {
            request_row: SuffixText(options.max_match, index) for request_row in state.request_rows
        }
        # Committed tokens that the texts have not read yet: they do so when a tree is asked for.
        self._unread = {
            request_row: list(state.prompts[request_row]) for request_row in state.request_rows
        }
        self._written: dict[int, list[int]] = {
            request_row: [] for request_row in state.request_rows
        }

    def tree(self, state: State) -> DraftTree:
        trees = [
            [] if why else self._likeliest(request_row, state.room_of(row))
            for row, (request_row, why) in enumerate(
                zip(state.request_rows, state.finish_reasons, strict=True)
            )
        ]
        if self._draft_size:
            most = max(map(len, trees))
            gains = accumulate(
                sum(nodes[place].probability for nodes in trees if place < len(nodes))
                for place in range(most)
            )
            count = self._draft_size.count([*gains], state, self._least)
            trees = [nodes[:count] for nodes in trees]
        return _draft_tree(state.root(), trees, self._least)

    def _likeliest(self, request_row: int, room: int) -> list[Node]:
        options, text = self._options, self._texts[request_row]
        text.extend(self._unread[request_row])
        self._unread[request_row] = []
        return text.tree(options.budget, min(options.depth, room), options.min_probability)

    def learn(self, step: Step, seconds: StepSeconds) -> None:
        """Take in what a step has committed and how long it took; texts that it has ended join the
        engine's earlier ones."""
        if self._draft_size:
            self._draft_size.learn(step, seconds, self._state)
        rows = zip(step.request_rows, step.new_tokens, step.finish_reasons, strict=True)
        for request_row, tokens, finished in rows:
            self._unread[request_row] += tokens
            if self._earlier is not None and tokens:
                self._written[request_row] += tokens
                if finished:
                    self._earlier.add(self._written.pop(request_row))

    def learn_texts(self, texts: Sequence[Sequence[int]]) -> None:
        """Those that no step has ended join the engine's earlier ones too, as far as they came."""
        if self._earlier is None:
            return
        for request_row in self._written:
            if texts[request_row]:
                self._earlier.leave(texts[request_row])

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing is kept by row."""


def _draft_tree(root: Tensor, trees: Sequence[Sequence[Node]], least: int) -> DraftTree:
    """Each row's nodes below its root, filled up with invalid ones to one size."""
    size = max(map(len, trees))
    if size == 0:
        return DraftTree.root(root)
    size = max(size, least)
    depth, branching = 0, 0
    for nodes in trees:
        levels, children = [0], [0] * (len(nodes) + 1)
        for node in nodes:
            levels.append(levels[node.parent + 1] + 1)
            children[node.parent + 1] += 1
        depth, branching = max(depth, *levels), max(branching, *children)
    missing = [size - len(nodes) for nodes in trees]
    rows = list(zip(trees, missing, strict=True))
    below = torch.tensor(
        [[*(node.token for node in nodes), *[0] * more] for nodes, more in rows],
        device=root.device,
    )
    parents = [[-1, *(node.parent + 1 for node in nodes), *[0] * more] for nodes, more in rows]
    values = [
        [0.0, *(math.log(node.probability) for node in nodes), *[-math.inf] * more]
        for nodes, more in rows
    ]
    log_value = torch.tensor(values, device=root.device)
    return DraftTree(
        tokens=torch.cat([root[:, None], below], dim=1),
        parents=torch.tensor(parents, device=root.device),
        log_value=log_value,
        valid=log_value > -math.inf,
        depth=depth,
        branching=branching,
        from_text=True,
    )
