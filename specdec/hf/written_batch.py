"""A batch as transformers' ``generate`` writes it, column by column, and what it returns."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor
from transformers.generation import GenerateDecoderOnlyOutput

from specdec.columns import Columns
from specdec.decoding.step import Step
from specdec.generation import Generation, GenerationSetup
from specdec.hf.prepared import Prepared


class WrittenBatch:
    """What ``generate`` would have written so far: after every column the stopping criteria are
    called with the whole batch, as they are there, and the streamer gets the column.

    Args:
        prepared: what was asked for.
        generation: what decodes it; rows may be ahead of each other.
        setup: of the generation: of a sharded model the first rank calls the criteria.
        streamer: one of transformers, or None.
    """

    def __init__(
        self, prepared: Prepared, generation: Generation, setup: GenerationSetup, streamer: Any
    ) -> None:
        self._setup = setup
        self._prepared, self._generation, self._streamer = prepared, generation, streamer
        ids, config = prepared.input_ids, prepared.config
        self._rows = ids.shape[0]
        self._columns = Columns(self._rows, prepared.pad)
        self._ids = torch.cat([ids, ids.new_zeros(self._rows, _room(generation, ids))], dim=1)
        self._length = ids.shape[1]
        self._criteria = prepared.other_criteria
        self._done = [False] * self._rows
        keeps = generation.request.keeps_scores
        scores, logits = keeps and config.output_scores, keeps and config.output_logits
        self._scores = _ScoreColumns(self._rows, ids.device) if scores else None
        self._logits = _ScoreColumns(self._rows, ids.device) if logits else None

    def write(self) -> None:
        """Decode to the end."""
        for step in self._generation:
            if self._scores:
                self._scores.take(step, step.scores)
            if self._logits:
                self._logits.take(step, step.logits)
            for column in self._columns.take(step):
                self._write(torch.tensor(column))
                if all(self._done):
                    for row in range(self._rows):
                        self._generation.end(row, self._new_tokens)
                    return

    @property
    def _new_tokens(self) -> int:
        """Of each row."""
        return self._length - self._prepared.input_ids.shape[1]

    def _write(self, column: Tensor) -> None:
        self._ids[:, self._length] = column.to(self._ids.device)
        self._length += 1
        for kept in filter(None, (self._scores, self._logits)):
            kept.write()
        if self._streamer is not None:
            self._streamer.put(column)
        if not self._criteria:
            return
        scores = tuple(self._scores.columns) if self._scores else None
        text = self._ids[:, : self._length]
        says = self._setup.decided(lambda: self._criteria(text, scores).tolist())
        for row, done in enumerate(says):
            if not done or self._done[row]:
                continue
            self._done[row] = True
            if self._prepared.pads:
                self._columns.end(row)
                self._generation.end(row, self._new_tokens)
                for kept in filter(None, (self._scores, self._logits)):
                    kept.end(row)

    def output(self) -> GenerateDecoderOnlyOutput | Tensor:
        """What ``generate`` returns: token ids ``[B, T]``, or more if it was asked for."""
        ids, config = self._ids[:, : self._length].clone(), self._prepared.config
        if not config.return_dict_in_generate:
            return ids
        return GenerateDecoderOnlyOutput(
            sequences=ids,
            scores=tuple(self._scores.columns) if self._scores else None,
            logits=tuple(self._logits.columns) if self._logits else None,
        )


class _ScoreColumns:
    """Scores of each new token by column, ``[B, V]`` float32 as in transformers; 0 for rows that
    have ended. On the device of the prompts, as there."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._device = device
        self.columns: list[Tensor] = []
        self._waiting: list[deque[Tensor]] = [deque() for _ in range(rows)]
        self._blank: Tensor | None = None

    def take(self, step: Step, scores: Tensor) -> None:
        """Take in ``scores [B, n, V]`` of a step's new tokens."""
        scores = scores.to(self._device, torch.float32)
        for row, request_row in enumerate(step.request_rows):
            self._waiting[request_row].extend(scores[row, : len(step.new_tokens[row])])
        self._blank = torch.zeros_like(scores[0, 0])

    def write(self) -> None:
        """Put together one column."""
        assert self._blank is not None
        own = [each.popleft() if each else self._blank for each in self._waiting]
        self.columns.append(torch.stack(own))

    def end(self, row: int) -> None:
        """Forget what was taken in of a row beyond what was written."""
        self._waiting[row].clear()


def _room(generation: Generation, ids: Tensor) -> int:
    """The most columns."""
    request = generation.request
    limits = zip(request.limits, request.rows, strict=True)
    return max(limit - len(row) for limit, row in limits)
