"""Counters, spans and log records: what they say is what was decoded."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import tiny
import torch

import specdec.hf
from specdec import Engine, hookimpl
from specdec.errors import OptionError, PluginError, install_extra
from specdec.plugin.observing import PerGeneration
from specdec_plugins.otel import OpenTelemetrySpans
from specdec_plugins.prometheus import PrometheusCounters

SETTINGS: dict[str, Any] = {"max_new_tokens": 9, "seed": 2, "temperature": 1.0}


def watched(engine: Engine, observer: object) -> Engine:
    """An engine with the same model and parts, and an observer."""
    return Engine(
        engine.target.model,
        tokenizer=engine.tokenizer,
        strategy=engine.strategy.name,
        drafter=engine.selection.names["drafter"],
        options=engine.selection.options,
        plugins=[observer],
    )


def end_by_criterion(model: Any, decoder: Any) -> None:
    """Two texts that a criterion ends, one after two tokens, one after four."""
    model.generate(
        torch.tensor([[5, 9], [4, 6]]),
        custom_generate=decoder,
        stopping_criteria=[lambda ids, scores: ids.shape[1] >= torch.tensor([4, 6])],
        max_new_tokens=9,
        do_sample=False,
        eos_token_id=1,
        pad_token_id=0,
    )


def fails_once() -> dict[str, Any]:
    """An argument of generate by which the first batch runs out of memory after some steps."""
    failed: list[int] = []

    def processor(ids: Any, scores: Any) -> Any:
        if ids.shape[1] == 6 and not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("no memory for that many")
        return scores

    return {"logits_processor_by_prompt": lambda prompt: partial(processor)}


class TestPrometheus:
    @pytest.fixture
    def registry(self) -> Any:
        client = pytest.importorskip("prometheus_client")
        return client.CollectorRegistry()

    def test_two_of_them_on_one_registry_are_refused_with_what_to_do(self, registry: Any) -> None:
        PrometheusCounters(registry)
        with pytest.raises(PluginError, match="give that one object to every engine, or this one"):
            PrometheusCounters(registry)

    def test_the_counters_are_the_statistics(self, dynamic: Engine, registry: Any) -> None:
        engine = watched(dynamic, PrometheusCounters(registry))
        labels = {"model": engine.model_name, "strategy": "eagle2"}

        def value(name: str, **more: str) -> float:
            return float(registry.get_sample_value(f"specdec_{name}", {**labels, **more}) or 0)

        results: Any = engine.generate(tiny.PROMPTS, **SETTINGS, eos_token_id=tiny.EOS)
        assert [r.token_ids for r in results] == tiny.tokens(
            dynamic, tiny.PROMPTS, **SETTINGS, eos_token_id=tiny.EOS
        )
        stats = [result.stats for result in results]
        assert value("prompt_tokens_total") == sum(map(len, tiny.PROMPTS))
        assert value("generated_tokens_total") == sum(each.new_tokens for each in stats)
        assert value("target_forwards_total") == sum(each.target_forwards for each in stats)
        assert value("accepted_tokens_total") == sum(each.accepted_tokens for each in stats)
        for depth in range(4):
            own = [each for each in stats if len(each.tried) > depth]
            tried = sum(each.tried[depth] for each in own)
            taken = sum(each.tried[depth] * each.alpha[depth] for each in own)
            assert value("drafts_tried_total", depth=str(depth + 1)) == tried
            assert value("drafts_accepted_total", depth=str(depth + 1)) == pytest.approx(taken)
        for reason in ("eos", "length"):
            wanted = sum(result.finish_reason == reason for result in results)
            assert value("requests_total", finish_reason=reason) == wanted
        for phase in ("prefill", "draft", "verify"):
            seconds = value("phase_seconds_total", phase=phase)
            assert seconds == pytest.approx(stats[0].seconds[phase])
        assert value("request_seconds_count") == len(results) and not value("rows_running")
        assert value("step_seconds_count") >= max(each.target_forwards for each in stats)

    def test_a_stream_that_is_left_is_counted_as_abandoned(
        self, plain: Engine, registry: Any
    ) -> None:
        engine = watched(plain, PrometheusCounters(registry))
        labels = {"model": engine.model_name, "strategy": "plain"}
        stream = engine.stream("HELLO", max_new_tokens=9)
        next(iter(stream))
        assert registry.get_sample_value("specdec_rows_running", labels) == 1
        del stream
        gc.collect()
        assert registry.get_sample_value("specdec_rows_running", labels) == 0
        reason = {**labels, "finish_reason": "abandoned"}
        assert registry.get_sample_value("specdec_requests_total", reason) == 1

    def test_a_batch_that_is_halved_is_counted_as_failed_and_again(
        self, plain: Engine, registry: Any
    ) -> None:
        engine = watched(plain, PrometheusCounters(registry))
        with pytest.warns(UserWarning, match="does not fit into memory"):
            results: Any = engine.generate([[5, 9], [4, 6]], max_new_tokens=9, **fails_once())
        gc.collect()
        labels = {"model": engine.model_name, "strategy": "plain"}
        assert registry.get_sample_value("specdec_rows_running", labels) == 0
        assert registry.get_sample_value("specdec_prompt_tokens_total", labels) == 2 * 4
        for reason, rows in (("failed", 2), ("length", len(results)), ("abandoned", None)):
            own = {**labels, "finish_reason": reason}
            assert registry.get_sample_value("specdec_requests_total", own) == rows
        assert registry.get_sample_value("specdec_request_seconds_count", labels) == 2

    def test_a_text_that_a_criterion_of_generate_ends_has_its_reason(
        self, model: Any, registry: Any
    ) -> None:
        decoder = specdec.hf.decoder("plain", plugins=[PrometheusCounters(registry)])
        end_by_criterion(model, decoder)
        labels = {"model": type(model).__name__, "strategy": "plain"}
        assert registry.get_sample_value("specdec_rows_running", labels) == 0
        for reason, rows in (("criteria", 2), ("length", None), ("abandoned", None)):
            own = {**labels, "finish_reason": reason}
            assert registry.get_sample_value("specdec_requests_total", own) == rows
        assert registry.get_sample_value("specdec_request_seconds_count", labels) == 2

    def test_one_object_serves_several_engines(self, plain: Engine, registry: Any) -> None:
        counters = PrometheusCounters(registry)
        for _ in range(2):
            watched(plain, counters).generate([5, 9], max_new_tokens=3)
        labels = {"model": watched(plain, counters).model_name, "strategy": "plain"}
        assert registry.get_sample_value("specdec_generated_tokens_total", labels) == 6


class TestOpenTelemetry:
    @pytest.fixture
    def traced(self) -> Any:
        """A provider, and a function to the spans that have ended."""
        pytest.importorskip("opentelemetry.sdk")
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        provider, exporter = TracerProvider(), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return provider, exporter.get_finished_spans

    def test_each_prompt_has_a_span_with_its_statistics(self, dynamic: Engine, traced: Any) -> None:
        provider, spans = traced
        engine = watched(dynamic, OpenTelemetrySpans(provider))
        began = time.time_ns()
        with provider.get_tracer("test").start_as_current_span("request") as parent:
            results: Any = engine.generate(tiny.PROMPTS, **SETTINGS, eos_token_id=tiny.EOS)
        *own, _ = spans()
        assert len(own) == len(results)
        for span in own:
            assert span.name == f"text_completion {engine.model_name}"
            assert span.parent.span_id == parent.get_span_context().span_id
            assert began <= span.start_time < span.end_time <= time.time_ns()
            assert span.attributes["gen_ai.provider.name"] == "specdec"
            assert span.attributes["specdec.strategy"] == "eagle2"
            assert span.status.is_unset
            assert span.attributes["specdec.seconds.verify"] > 0
        told = {
            span.attributes["gen_ai.usage.input_tokens"]: (
                span.attributes["gen_ai.usage.output_tokens"],
                span.attributes["gen_ai.response.finish_reasons"],
                span.attributes["specdec.tau"],
            )
            for span in own
        }
        assert told == {
            result.prompt_tokens: (
                len(result.token_ids),
                (result.finish_reason,),
                result.stats.tau,
            )
            for result in results
        }

    def test_steps_are_events_where_they_are_asked_for(self, dynamic: Engine, traced: Any) -> None:
        provider, spans = traced
        engine = watched(dynamic, OpenTelemetrySpans(provider, steps=True))
        result: Any = engine.generate([5, 9, 1], **SETTINGS)
        (span,) = spans()
        steps = [event.attributes for event in span.events]
        assert len(steps) == result.stats.target_forwards
        assert sum(step["specdec.new_tokens"] for step in steps) == len(result.token_ids)
        assert sum(step["specdec.accepted"] for step in steps) == result.stats.accepted_tokens

    def test_a_text_that_a_criterion_of_generate_ends_has_its_reason(
        self, model: Any, traced: Any
    ) -> None:
        provider, spans = traced
        observer = OpenTelemetrySpans(provider)
        end_by_criterion(model, specdec.hf.decoder("plain", plugins=[observer]))
        observer._watched.settle()
        assert len(spans()) == 2
        told = {span.attributes["gen_ai.usage.output_tokens"] for span in spans()}
        assert told == {2, 4}
        for span in spans():
            assert span.attributes["gen_ai.response.finish_reasons"] == ("criteria",)

    def test_asynchronous_calls_have_the_span_that_is_current(
        self, plain: Engine, traced: Any
    ) -> None:
        provider, spans = traced
        engine = watched(plain, OpenTelemetrySpans(provider))
        with provider.get_tracer("test").start_as_current_span("request") as parent:
            asyncio.run(engine.agenerate([5, 9], max_new_tokens=3))
        own, _ = spans()
        assert own.parent.span_id == parent.get_span_context().span_id

    def test_a_stream_that_is_left_ends_its_span(self, plain: Engine, traced: Any) -> None:
        provider, spans = traced
        engine = watched(plain, OpenTelemetrySpans(provider))
        stream = engine.stream("HELLO", max_new_tokens=9)
        next(iter(stream))
        assert not spans()
        del stream
        gc.collect()
        dropped = time.time_ns()
        engine.generate([5, 9], max_new_tokens=2)
        span, other = spans()
        assert span.end_time <= dropped < other.end_time
        assert span.attributes["gen_ai.usage.output_tokens"] >= 1
        assert "gen_ai.response.finish_reasons" not in span.attributes

    def test_a_generation_that_raises_has_the_status_and_the_type_of_its_error(
        self, plain: Engine, traced: Any
    ) -> None:
        provider, spans = traced
        engine = watched(plain, OpenTelemetrySpans(provider))
        with pytest.warns(UserWarning, match="does not fit into memory"):
            engine.generate([[5, 9], [4, 6]], max_new_tokens=9, **fails_once())
        failed = [span for span in spans() if "error.type" in span.attributes]
        assert len(failed) == 2 and len(spans()) == 4
        for span in failed:
            assert span.attributes["error.type"] == "torch.OutOfMemoryError"
            assert span.status.status_code.name == "ERROR"
            assert "gen_ai.response.finish_reasons" not in span.attributes


def test_what_is_dropped_is_given_up_outside_of_the_garbage_collector(plain: Engine) -> None:
    """It may run while the thread that it interrupts has a lock of the library that counts."""
    given_up: list[str] = []
    watching = PerGeneration(lambda info: info.model, lambda kept, when: given_up.append(kept))

    class Watcher:
        @hookimpl
        def specdec_step(self, step: Any, generation: Any) -> None:
            watching.of(generation)

    stream = watched(plain, Watcher()).stream("HELLO", max_new_tokens=9)
    next(iter(stream))
    del stream
    gc.collect()
    assert not given_up
    watching.settle()
    watching.settle()
    assert given_up == [plain.model_name]


@pytest.mark.parametrize(
    ("made", "module", "extra"),
    [
        (PrometheusCounters, "prometheus_client", "prometheus"),
        (OpenTelemetrySpans, "opentelemetry", "otel"),
    ],
)
def test_without_its_library_an_observer_says_what_to_install(
    made: Any, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PluginError, match=re.escape(install_extra(extra))):
        made()


def said(act: Callable[[], Any]) -> str:
    """What a process prints that does ``act``, without the handlers that pytest adds."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        logging.root.handlers.clear()
        for stream in (1, 2):
            os.dup2(write, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
        act()
        logging.getLogger("specdec.engine").warning("a warning")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process is forked")
def test_nothing_is_said_unless_it_is_asked_for(plain: Engine) -> None:
    def decode() -> None:
        Engine(plain.target.model, strategy="plain").generate([5, 9], max_new_tokens=3)

    def listen() -> None:
        logging.basicConfig(level=logging.INFO)
        decode()

    assert said(decode) == ""
    heard = said(listen)
    assert "INFO:specdec.engine:LlamaForCausalLM is loaded" in heard and "a warning" in heard


def test_what_is_logged_tells_what_is_decoded(
    plain: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "specdec"):
        Engine(plain.target.model, strategy="plain")
    assert "is loaded" in caplog.text and "strategy plain: verifier" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "specdec"):
        plain.generate([[5, 9], [4]], max_new_tokens=3)
    assert "2 prompts, 6 new tokens, tau 1.00" in caplog.text
    assert all(record.name.startswith("specdec.") for record in caplog.records)


def test_whether_steps_are_events_is_true_or_false() -> None:
    with pytest.raises(OptionError, match="steps='no': give True or False"):
        OpenTelemetrySpans(steps="no")  # type: ignore[arg-type]
