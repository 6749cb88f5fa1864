"""Log-probabilities of the tokens of an answer, before and after logits processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from specdec.decoding.step import Step


@dataclass(frozen=True)
class TokenLogprobs:
    """How likely a token of an answer was, given the text before it.

    Attributes:
        token: its id.
        raw: its log-probability under the model's own distribution.
        processed: the same after the request's logits processors, temperature and truncation; of
            greedy decoding after its processors alone.
        top_raw, top_processed: the likeliest tokens under each with their log-probabilities, the
            likeliest first; as many as ``logprobs`` says, without tokens of probability 0.
    """

    token: int
    raw: float
    processed: float
    top_raw: tuple[tuple[int, float], ...] = ()
    top_processed: tuple[tuple[int, float], ...] = ()


class LogprobRecorder:
    """Records how likely the tokens of a batch were.

    Args:
        rows: how many rows the request has.
        top: how many of the likeliest tokens are reported beside each token.
    """

    def __init__(self, rows: int, top: int) -> None:
        self._top = top
        self._rows: list[list[TokenLogprobs]] = [[] for _ in range(rows)]

    def of(self, row: int) -> list[TokenLogprobs]:
        """Of the tokens that a row of the request has so far."""
        return list(self._rows[row])

    @torch.inference_mode()
    def observe(self, step: Step) -> None:
        """Take in a step. Reads from the device."""
        new = [torch.tensor(own, dtype=torch.int64) for own in step.new_tokens]
        tokens = pad_sequence(new, batch_first=True).to(step.kept.device)
        raw, processed = self._read(step.logits, tokens), self._read(step.scores, tokens)
        for row, request_row in enumerate(step.request_rows):
            for place, token in enumerate(step.new_tokens[row]):
                (own, top), (own_processed, top_processed) = raw[row][place], processed[row][place]
                self._rows[request_row].append(
                    TokenLogprobs(token, own, own_processed, top, top_processed)
                )

    def _read(
        self, scores: Tensor, tokens: Tensor
    ) -> list[list[tuple[float, tuple[tuple[int, float], ...]]]]:
        """Of ``scores [B, n, V]``: for each token ``[B, n]`` its log-probability, and the likeliest
        tokens with theirs."""
        share = scores.log_softmax(dim=-1)
        own = share.gather(2, tokens[:, :, None]).squeeze(2).tolist()
        best = share.topk(self._top, dim=-1)
        values, indices = best.values.tolist(), best.indices.tolist()
        return [
            [(chosen, _likely(*top)) for chosen, *top in zip(*each, strict=True)]
            for each in zip(own, indices, values, strict=True)
        ]


def _likely(tokens: Sequence[int], values: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Pairs of a token and its log-probability, without those that are impossible."""
    pairs = zip(tokens, values, strict=True)
    return tuple((token, value) for token, value in pairs if value > float("-inf"))
