"""A span for each prompt, with the attributes of OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdec.booleans import check_bools
from specdec.decoding.generation_info import GenerationInfo
from specdec.decoding.metrics import Metrics
from specdec.errors import PluginError, install_extra
from specdec.plugin.components import hookimpl
from specdec.plugin.observing import PerGeneration

if TYPE_CHECKING:
    from specdec.decoding.step import Step

_OPERATION = "text_completion"


@dataclass
class _Running:
    """Of one generation.

    Attributes:
        spans: by prompt, those that have not ended.
        metrics: of its steps so far.
        ended: rows that were ended between steps.
        failure: what the generation ended with, if it raised an error.
    """

    spans: dict[int, Any]
    metrics: Metrics
    ended: Mapping[int, tuple[str, int]]
    failure: Sequence[str]

    def end_between_steps(self, when: int | None = None) -> None:
        """End the spans of rows that were ended since the last step."""
        for row, (reason, new_tokens) in self.ended.items():
            if row in self.spans:
                self.metrics.end(row, new_tokens)
                _end(self.spans.pop(row), row, self.metrics, when, reason)


class OpenTelemetrySpans:
    """Makes a span for each prompt, from the start of its generation to the end of its row.

    A span is a child of the one that is current when the first step is committed. Its attributes
    are ``gen_ai.operation.name``, ``gen_ai.provider.name``, ``gen_ai.request.model``,
    ``gen_ai.usage.input_tokens``, ``gen_ai.usage.output_tokens``,
    ``gen_ai.response.finish_reasons`` and, of the project's own,
    ``specdec.strategy``, ``specdec.lossless``, ``specdec.rows`` (of its batch), ``specdec.tau``,
    ``specdec.target_forwards``, ``specdec.accepted_tokens`` and ``specdec.seconds.<phase>``. The
    span of a generation that was given up has no finish reason; that of one that raised an error
    has its type as ``error.type``, and the status of an error. Both are exported with the next step
    that is observed, or when the program ends. A generation that ends before its first step has no
    span.

    Example:
        >>> engine = Engine(plugins=[OpenTelemetrySpans()])

    Args:
        tracer_provider: of the OpenTelemetry SDK; the global one if left out.
        steps: whether each step is an event of the span, with ``specdec.new_tokens``,
            ``specdec.accepted`` and ``specdec.tried``.

    Raises:
        OptionError: ``steps`` that is neither True nor False.
        PluginError: the OpenTelemetry API is not installed.
    """

    def __init__(self, tracer_provider: Any = None, *, steps: bool = False) -> None:
        check_bools(steps=steps)
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise PluginError(
                f"OpenTelemetrySpans needs opentelemetry-api: {install_extra('otel')}"
            ) from error
        from specdec import __version__

        self._tracer = trace.get_tracer("specdec", __version__, tracer_provider)
        self._kind, self._steps = trace.SpanKind.INTERNAL, steps
        self._failed = trace.Status(trace.StatusCode.ERROR)
        self._watched = PerGeneration(self._begin, self._give_up)
        atexit.register(self._watched.settle)

    @hookimpl
    def specdec_step(self, step: Step, generation: GenerationInfo) -> None:
        """Note a step, and end the spans of the rows that ended with it."""
        running = self._watched.of(generation)
        running.end_between_steps()
        running.metrics.observe(step)
        rows = zip(
            step.request_rows,
            step.new_tokens,
            step.accepted,
            step.tried,
            step.finish_reasons,
            strict=True,
        )
        for request_row, tokens, accepted, tried, reason in rows:
            if tokens and self._steps:
                running.spans[request_row].add_event(
                    "step",
                    {
                        "specdec.new_tokens": len(tokens),
                        "specdec.accepted": accepted,
                        "specdec.tried": tried,
                    },
                )
            if reason is not None:
                _end(running.spans.pop(request_row), request_row, running.metrics, reason=reason)
        if not running.spans:
            self._watched.end(generation)

    def _begin(self, generation: GenerationInfo) -> _Running:
        rows = len(generation.prompt_tokens)
        shared = {
            "gen_ai.operation.name": _OPERATION,
            "gen_ai.provider.name": "specdec",
            "gen_ai.request.model": generation.model,
            "specdec.strategy": generation.strategy,
            "specdec.lossless": generation.lossless,
            "specdec.rows": rows,
        }
        spans = {
            row: self._tracer.start_span(
                f"{_OPERATION} {generation.model}",
                kind=self._kind,
                attributes={**shared, "gen_ai.usage.input_tokens": tokens},
                start_time=generation.started,
            )
            for row, tokens in enumerate(generation.prompt_tokens)
        }
        metrics = Metrics(rows, generation.clock, lossless=generation.lossless)
        return _Running(spans, metrics, generation.ended, generation.failure)

    def _give_up(self, running: _Running, when: int) -> None:
        running.end_between_steps(when)
        for row, span in running.spans.items():
            if running.failure:
                span.set_attribute("error.type", running.failure[0])
                span.set_status(self._failed)
            _end(span, row, running.metrics, when)


def _end(
    span: Any, row: int, metrics: Metrics, when: int | None = None, reason: str | None = None
) -> None:
    if reason is not None:
        span.set_attribute("gen_ai.response.finish_reasons", [reason])
    stats = metrics.stats(row)
    span.set_attributes(
        {
            "gen_ai.usage.output_tokens": stats.new_tokens,
            "specdec.tau": stats.tau,
            "specdec.target_forwards": stats.target_forwards,
            "specdec.accepted_tokens": stats.accepted_tokens,
            **{f"specdec.seconds.{name}": each for name, each in metrics.clock.seconds.items()},
        }
    )
    span.end(when)
