"""Text streams: the answer to one prompt, piece by piece as it is committed."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from transformers import PreTrainedTokenizerBase

from specdec.generation import Generation
from specdec.request.detokenizer import Detokenizer
from specdec.results import GenerationResult


class TextStream:
    """Iterate over it; afterwards (or after a break) :attr:`result` has everything."""

    def __init__(self, generation: Generation, tokenizer: PreTrainedTokenizerBase) -> None:
        self._generation = generation
        skip = generation.request.skip_special_tokens
        self._detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Stop here: what has been committed stands."""
        self._pieces.close()
        self._generation.close()

    @property
    def result(self) -> GenerationResult:
        """What has been generated so far."""
        return self._generation.results()[0]

    def _run(self) -> Generator[str, None, None]:
        stop = self._generation.request.sampling.stop
        given = 0
        try:
            for step in self._generation:
                for token in step.new_tokens[0]:
                    self._detokenizer.push(token, stop)
                if piece := self._detokenizer.take(stop):
                    given += len(piece)
                    yield piece
        finally:
            self._generation.close()
        text = self.result.text or ""
        if len(text) > given:
            yield text[given:]
