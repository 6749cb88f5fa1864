"""Sessions: generations one after the other on one cache, as the turns of a chat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specdec.generation import Generation, GenerationSetup, ResumePoint
from specdec.request.request import Request
from specdec.results import GenerationResult
from specdec.streamers import check_streamer, ending_streamer, fed
from specdec.streaming import BatchStream, TextStream, text_stream


class Session:
    """Generations that share a prefix without reading it again.

    Made by :meth:`Engine.session() <specdec.engine.Engine.session>`. A prompt that begins like the
    last prompt and answer is read from where it parts (or a few tokens before).

    Args:
        setup: of each generation.
        request: makes the request for a prompt and its settings, with a check that may refuse it.
    """

    def __init__(
        self, setup: Callable[[], GenerationSetup], request: Callable[..., Request]
    ) -> None:
        self._setup, self._request = setup, request
        self._kept: ResumePoint | None = None

    def generate(
        self, prompt: Any, *, streamer: Any = None, **settings: Any
    ) -> GenerationResult | list[GenerationResult]:
        """Like :meth:`Engine.generate <specdec.engine.Engine.generate>`, with its arguments but for
        ``batch_size`` and ``progress``: the prompts of a turn are decoded together."""

        def check(request: Request) -> None:
            check_streamer(streamer, len(request.rows))

        with ending_streamer(streamer):
            generation = self._start(self._request(prompt, settings, check))
            try:
                for _ in generation if streamer is None else fed(generation, streamer):
                    pass
            finally:
                generation.close()
        results = generation.results()
        return results if generation.batched else results[0]

    def stream(self, prompt: Any, **settings: Any) -> TextStream | BatchStream:
        """Like :meth:`Engine.stream <specdec.engine.Engine.stream>`."""
        return text_stream(self.start(prompt, **settings), self._setup().tokenizer)

    def start(self, prompt: Any, **settings: Any) -> Generation:
        """A generation whose steps are run by iterating over it; arguments as for ``generate``, but
        for ``streamer``."""
        return self._start(self._request(prompt, settings))

    def _start(self, request: Request) -> Generation:
        generation = Generation(self._setup(), request, before=self._kept, on_end=self._keep)
        self._kept = None  # its cache has another owner now
        return generation

    def _keep(self, kept: ResumePoint) -> None:
        self._kept = kept
