"""Text streams: answers piece by piece as they are committed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from specdec.errors import PromptError
from specdec.generation import Generation
from specdec.request.detokenizer import Detokenizer
from specdec.results import GenerationResult

Piece = TypeVar("Piece")


class _Stream(ABC, Generic[Piece]):
    """Runs a generation and yields what its texts grow by."""

    def __init__(self, generation: Generation, tokenizer: PreTrainedTokenizerBase) -> None:
        self._generation, self._stop = generation, generation.request.sampling.stop
        skip = generation.request.skip_special_tokens
        rows = range(len(generation.request.rows))
        self._growing = [Detokenizer(tokenizer, skip_special_tokens=skip) for _ in rows]
        self._given = [0 for _ in rows]
        self._pieces = self._run()

    def __iter__(self) -> Iterator[Piece]:
        return self._pieces

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Stop here: what has been committed stands."""
        self._pieces.close()
        self._generation.close()

    @abstractmethod
    def _piece(self, row: int, text: str) -> Piece:
        """What is yielded where the text of a row has grown by ``text``."""

    def _run(self) -> Generator[Piece, None, None]:
        rest = dict.fromkeys(range(len(self._given)))  # rows whose end was not given yet
        try:
            for step in self._generation:
                for row, request_row in enumerate(step.request_rows):
                    for token in step.new_tokens[row]:
                        self._growing[request_row].push(token, self._stop)
                    if piece := self._growing[request_row].take(self._stop):
                        self._given[request_row] += len(piece)
                        yield self._piece(request_row, piece)
                    if step.finish_reasons[row] is not None:
                        del rest[request_row]
                        yield from self._end(request_row)
        finally:
            self._generation.close()
        for request_row in rest:
            yield from self._end(request_row)

    def _end(self, row: int) -> Iterator[Piece]:
        """What the text of a row that has ended has more than was given of it."""
        text = self._generation.result(row).text or ""
        if len(text) > self._given[row]:
            yield self._piece(row, text[self._given[row] :])


class TextStream(_Stream[str]):
    """The answer to one prompt: iterate over its pieces; afterwards (or after a break)
    :attr:`result` has everything."""

    @property
    def result(self) -> GenerationResult:
        """What has been generated so far."""
        return self._generation.result(0)

    def _piece(self, row: int, text: str) -> str:
        return text


class BatchStream(_Stream[tuple[int, str]]):
    """The answers of a batch: iterate over pairs of an index and what the answer of that index
    grows by; afterwards (or after a break) :attr:`results` has everything."""

    @property
    def results(self) -> list[GenerationResult]:
        """What has been generated so far, in the order of the prompts, the texts of one prompt one
        after the other."""
        return self._generation.results()

    def _piece(self, row: int, text: str) -> tuple[int, str]:
        return row, text


def text_stream(
    generation: Generation, tokenizer: PreTrainedTokenizerBase | None
) -> TextStream | BatchStream:
    """The text of a generation as it grows.

    Raises:
        PromptError: there is no tokenizer.
    """
    if tokenizer is None:
        raise PromptError("streaming text needs a tokenizer: give Engine(..., tokenizer=...)")
    kind = BatchStream if generation.batched else TextStream
    return kind(generation, tokenizer)
