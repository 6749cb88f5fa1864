"""The counters, and the observer that counts."""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specdec.decoding.generation_info import GenerationInfo
from specdec.errors import PluginError, install_extra
from specdec.plugin.components import hookimpl
from specdec.plugin.observing import PerGeneration

if TYPE_CHECKING:
    from specdec.decoding.step import Step

_LABELS = ("model", "strategy")
_REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


@dataclass
class _Running:
    """Of one generation.

    Attributes:
        rows: that are being decoded.
        started: when it began, in nanoseconds since 1970.
        ended: rows that were ended between steps; those that have been counted are known by number.
        failure: what it ended with, if it raised an error.
        counted: its seconds by phase that have been counted.
    """

    labels: tuple[str, str]
    rows: int
    started: int
    ended: Mapping[int, tuple[str, int]]
    failure: Sequence[str]
    ends: int = 0
    counted: dict[str, float] = field(default_factory=dict)


class PrometheusCounters:
    """Counts tokens, target forwards, acceptance by depth, requests and seconds.

    Example:
        >>> engine = Engine(plugins=[PrometheusCounters()])
        >>> prometheus_client.start_http_server(9100)

    One object may be given to any number of engines; the labels ``model`` and ``strategy`` tell
    them apart. tau is the rate of ``specdec_generated_tokens_total`` over that of
    ``specdec_target_forwards_total``. Prompts that are decoded anew, as those of a batch that does
    not fit into memory, are counted each time.

    Args:
        registry: a registry of ``prometheus_client``; its own if left out.

    Raises:
        PluginError: ``prometheus_client`` is not installed, or the registry has these counters.
    """

    def __init__(self, registry: Any = None) -> None:
        try:
            from prometheus_client import REGISTRY, Counter, Gauge, Histogram
        except ImportError as error:
            raise PluginError(
                f"PrometheusCounters needs prometheus-client: {install_extra('prometheus')}"
            ) from error
        where: dict[str, Any] = {"registry": REGISTRY if registry is None else registry}

        def counter(name: str, text: str, *more: str) -> Any:
            try:
                return Counter(f"specdec_{name}", text, (*_LABELS, *more), **where)
            except ValueError as error:
                raise PluginError(
                    f"the registry has specdec_{name} already, of another PrometheusCounters: give "
                    "that one object to every engine, or this one a CollectorRegistry of its own"
                ) from error

        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._tokens = counter("generated_tokens", "Tokens committed.")
        self._forwards = counter("target_forwards", "Verifications, counted for each row.")
        self._accepted = counter("accepted_tokens", "Draft tokens accepted.")
        self._tried_at = counter("drafts_tried", "Rows with a draft token at a depth.", "depth")
        self._accepted_at = counter("drafts_accepted", "Rows that accepted one there.", "depth")
        self._requests = counter("requests", "Prompts whose answer is finished.", "finish_reason")
        self._phases = counter("phase_seconds", "Seconds by phase of the loop.", "phase")
        self._running = Gauge("specdec_rows_running", "Rows being decoded.", _LABELS, **where)
        self._step_seconds = Histogram(
            "specdec_step_seconds", "Of a step.", _LABELS, buckets=_STEP_SECONDS, **where
        )
        self._request_seconds = Histogram(
            "specdec_request_seconds",
            "From the start of a generation to a row's end.",
            _LABELS,
            buckets=_REQUEST_SECONDS,
            **where,
        )
        self._watched = PerGeneration(self._begin, self._give_up)
        self._rows: Counts[tuple[str, str]] = Counts()
        self._lock = threading.Lock()

    @hookimpl
    def specdec_step(self, step: Step, generation: GenerationInfo) -> None:
        """Count a step."""
        running = self._watched.of(generation)
        self._count_rows(step, running.labels)
        self._count_seconds(generation, running)
        self._count_ends(running, filter(None, step.finish_reasons), time.time_ns())
        if not running.rows:
            self._watched.end(generation)

    def _begin(self, generation: GenerationInfo) -> _Running:
        labels = (generation.model, generation.strategy)
        self._prompt.labels(*labels).inc(sum(generation.prompt_tokens))
        self._change_rows(labels, len(generation.prompt_tokens))
        self._running.labels(*labels).set_function(lambda: self._rows_running(labels))
        rows = len(generation.prompt_tokens)
        return _Running(labels, rows, generation.started, generation.ended, generation.failure)

    def _rows_running(self, labels: tuple[str, str]) -> int:
        self._watched.settle()
        return self._rows[labels]

    def _change_rows(self, labels: tuple[str, str], by: int) -> None:
        with self._lock:
            self._rows[labels] += by

    def _count_ends(self, running: _Running, reasons: Iterable[str], when: int) -> None:
        """Count rows that have ended with a step, and those that were ended before it."""
        between = [reason for reason, _ in running.ended.values()][running.ends :]
        running.ends += len(between)
        for reason in (*between, *reasons):
            self._requests.labels(*running.labels, reason).inc()
            seconds = (when - running.started) / 1e9
            self._request_seconds.labels(*running.labels).observe(seconds)
            self._change_rows(running.labels, -1)
            running.rows -= 1

    def _give_up(self, running: _Running, when: int) -> None:
        self._count_ends(running, (), when)
        if not running.rows:
            return
        self._change_rows(running.labels, -running.rows)
        reason = "failed" if running.failure else "abandoned"
        self._requests.labels(*running.labels, reason).inc(running.rows)

    def _count_rows(self, step: Step, labels: tuple[str, str]) -> None:
        every = zip(step.new_tokens, step.accepted, step.tried, strict=True)
        rows = [facts for facts in every if facts[0]]  # those that had not finished before
        self._tokens.labels(*labels).inc(sum(len(tokens) for tokens, _, _ in rows))
        self._forwards.labels(*labels).inc(len(rows))
        self._accepted.labels(*labels).inc(sum(accepted for _, accepted, _ in rows))
        for depth in range(max((tried for _, _, tried in rows), default=0)):
            tried = sum(depth < tried for _, _, tried in rows)
            taken = sum(depth < min(accepted, tried) for _, accepted, tried in rows)
            self._tried_at.labels(*labels, str(depth + 1)).inc(tried)
            self._accepted_at.labels(*labels, str(depth + 1)).inc(taken)

    def _count_seconds(self, generation: GenerationInfo, running: _Running) -> None:
        step = 0.0
        for phase, seconds in generation.clock.seconds.items():
            more = seconds - running.counted.get(phase, 0.0)
            running.counted[phase] = seconds
            self._phases.labels(*running.labels, phase).inc(more)
            step += more if phase != "prefill" else 0.0
        self._step_seconds.labels(*running.labels).observe(step)
