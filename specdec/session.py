"""Sessions: generations one after the other on one cache, as the turns of a chat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specdec.generation import Generation, GenerationSetup, ResumePoint
from specdec.request.request import Request
from specdec.results import GenerationResult
from specdec.streaming import BatchStream, TextStream, text_stream


class Session:
    """Generations that share a prefix without reading it again.

    Made by :meth:`Engine.session() <specdec.engine.Engine.session>`. A prompt that begins like the
    last prompt and answer is read from where it parts (or a few tokens before).
    """

    def __init__(
        self, setup: Callable[[], GenerationSetup], request: Callable[..., Request]
    ) -> None:
        self._setup, self._request = setup, request
        self._kept: ResumePoint | None = None

    def generate(self, prompt: Any, **settings: Any) -> GenerationResult | list[GenerationResult]:
        """Like :meth:`Engine.generate <specdec.engine.Engine.generate>`."""
        generation = self.start(prompt, **settings)
        for _ in generation:
            pass
        results = generation.results()
        return results if generation.batched else results[0]

    def stream(self, prompt: Any, **settings: Any) -> TextStream | BatchStream:
        """Like :meth:`Engine.stream <specdec.engine.Engine.stream>`."""
        return text_stream(self.start(prompt, **settings), self._setup().tokenizer)

    def start(self, prompt: Any, **settings: Any) -> Generation:
        """A generation whose steps are run by iterating over it; arguments as for ``generate``."""
        return self._start(self._request(prompt, **settings))

    def _start(self, request: Request) -> Generation:
        generation = Generation(self._setup(), request, before=self._kept, on_end=self._keep)
        self._kept = None  # its cache has another owner now
        return generation

    def _keep(self, kept: ResumePoint) -> None:
        self._kept = kept
