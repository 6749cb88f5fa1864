"""Sessions: generations one after the other on one cache, as the turns of a chat."""

from __future__ import annotations

from typing import Any, Protocol

from specdec.errors import PromptError
from specdec.generation import Decoder, Generation
from specdec.request.request import Request
from specdec.results import GenerationResult
from specdec.streaming import TextStream


class Requests(Protocol):
    """What a session asks its engine for."""

    def decoder(self) -> Decoder:
        """What decodes."""

    def request(self, prompt: Any, **settings: Any) -> Request:
        """A call's request; arguments as for ``generate``."""


class Session:
    """Generations that share a prefix without reading it again.

    Made by :meth:`Engine.session() <specdec.engine.Engine.session>`. A prompt that begins like the
    last prompt and answer is read from where it parts (or a few tokens before).
    """

    def __init__(self, engine: Requests) -> None:
        self._engine = engine
        self._last: Generation | None = None

    def generate(self, prompt: Any, **settings: Any) -> GenerationResult | list[GenerationResult]:
        """Like :meth:`Engine.generate <specdec.engine.Engine.generate>`."""
        generation = self.start(prompt, **settings)
        for _ in generation:
            pass
        results = generation.results()
        return results if generation.batched else results[0]

    def stream(self, prompt: Any, **settings: Any) -> TextStream:
        """Like :meth:`Engine.stream <specdec.engine.Engine.stream>`."""
        tokenizer = self._engine.decoder().tokenizer
        if tokenizer is None:
            raise PromptError("streaming text needs a tokenizer: give Engine(..., tokenizer=...)")
        request = self._engine.request(prompt, **settings)
        if request.batched:
            raise PromptError("stream takes one prompt: give generate the batch")
        return TextStream(self._start(request), tokenizer)

    def start(self, prompt: Any, **settings: Any) -> Generation:
        """A generation whose steps are run by iterating over it; arguments as for ``generate``."""
        return self._start(self._engine.request(prompt, **settings))

    def _start(self, request: Request) -> Generation:
        before = self._last.kept if self._last else None
        generation = Generation(self._engine.decoder(), request, before=before, keeps=True)
        if self._last is not None:
            self._last.kept = None  # its cache has another owner now
        self._last = generation
        return generation
