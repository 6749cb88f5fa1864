"""The recorder: what a committed step says of each row, read from the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import PreTrainedTokenizerBase

from specdec.decoding.clock import Clock
from specdec.decoding.step import Step
from specdec.distribution import at_least_float32
from specdec.request.detokenizer import Detokenizer
from specdec.tracing.record import Outcome, TracedNode, TracedStep, TracedToken
from specdec.tracing.token_names import TokenNames


@dataclass(frozen=True)
class _Taken:
    """A step of one row before the text of its tokens is known: ``step`` has none of them."""

    step: TracedStep
    tokens: Sequence[int]
    probabilities: Sequence[float]


class Recorder:
    """Records the steps of a batch.

    Args:
        rows: how many prompts it has.
        clock: of the same generation.
        tokenizer: None where texts are token ids.
    """

    def __init__(self, rows: int, clock: Clock, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self._clock, self._tokenizer = clock, tokenizer
        self._names = TokenNames(tokenizer)
        self._rows: list[list[_Taken]] = [[] for _ in range(rows)]
        self._before, self._forwards = dict(clock.seconds), clock.draft_forwards

    def observe(self, step: Step) -> None:
        """Take in a step. Reads from the device."""
        now = dict(self._clock.seconds)
        seconds = {phase: now[phase] - self._before[phase] for phase in now if phase != "prefill"}
        levels = self._clock.draft_forwards - self._forwards
        self._before, self._forwards = now, self._clock.draft_forwards
        for row, request_row in enumerate(step.request_rows):
            if step.new_tokens[row]:
                self._rows[request_row].append(self._take(step, row, levels, seconds))

    def steps(
        self, request_row: int, text: str | None, *, skip_special_tokens: bool
    ) -> list[TracedStep]:
        """The steps of one text, each token with what it adds to the text.

        Args:
            text: of all new tokens, cut before a stop string.
        """
        taken = self._rows[request_row]
        tokens = [token for each in taken for token in each.tokens]
        pieces = iter(self._pieces(tokens, text, skip_special_tokens))
        return [
            each.step.model_copy(
                update={
                    "tokens": [
                        TracedToken(
                            token=token,
                            text=next(pieces),
                            name=self._names.of(token),
                            probability=probability,
                        )
                        for token, probability in zip(each.tokens, each.probabilities, strict=True)
                    ]
                }
            )
            for each in taken
        ]

    def _pieces(
        self, tokens: Sequence[int], text: str | None, skip_special_tokens: bool
    ) -> list[str | None]:
        """What each token adds to ``text``; the rest of it, if any, goes to the last token."""
        if text is None or self._tokenizer is None:
            return [None] * len(tokens)
        detokenizer = Detokenizer(self._tokenizer, skip_special_tokens=skip_special_tokens)
        ends = [0]
        for token in tokens:
            detokenizer.push(token)
            ends.append(ends[-1] + len(detokenizer.take()))
        ends[-1] = max(ends[-1], len(text))
        return [text[start:end] for start, end in pairwise(ends)]

    def _take(self, step: Step, row: int, levels: int, seconds: dict[str, float]) -> _Taken:
        tree, own = step.tree, step.new_tokens[row]
        share = at_least_float32(step.verification.logits[row]).log_softmax(dim=-1)
        kept = step.kept[row, : len(own)]
        new = torch.tensor(own, device=kept.device)
        probabilities = share[kept, new].exp().tolist()
        offered = share[tree.parents[row].clamp(min=0), tree.tokens[row]].exp().tolist()
        path = [node for node in step.acceptance.path[row].tolist() if node >= 0]
        accepted = step.accepted[row]
        agreed = {
            node: Outcome.ACCEPTED if order < accepted else Outcome.CUT
            for order, node in enumerate(path)
        }
        reached = [0, *path[:accepted]][: len(own)]  # where a next token was taken
        parents, tokens = tree.parents[row].tolist(), tree.tokens[row].tolist()
        values, depths = tree.log_value[row].double().exp().tolist(), tree.depths[row].tolist()
        nodes = [
            TracedNode(
                node=node,
                parent=parents[node],
                depth=depths[node],
                token=tokens[node],
                text=self._names.of(tokens[node]),
                value=values[node],
                probability=offered[node],
                outcome=agreed.get(
                    node, Outcome.REJECTED if parents[node] in reached else Outcome.NOT_REACHED
                ),
            )
            for node in tree.valid[row].nonzero()[:, 0].tolist()
            if node
        ]
        record = TracedStep(
            root=self._names.of(tokens[0]),
            nodes=nodes,
            tokens=[],
            bonus=len(own) > accepted,
            budget=tree.size - 1,
            levels=levels,
            tried=step.tried[row],
            from_text=tree.from_text,
            seconds=seconds,
        )
        return _Taken(record, own, probabilities)
