"""What a call may say: chat templates, generation configs, what is warned of and what refused."""

from __future__ import annotations

import ast
import copy
import inspect
import warnings
from collections import UserList
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tiny
import tokenizers as tk
import torch
import transformers as hf
from tiny import PROMPTS, SHAPE

from specdec import Engine
from specdec.errors import OptionError, PromptError, UnknownNameError
from specdec.request.generation_fields import ARGUMENTS, Fields
from specdec.request.prompts import encode

TOOLS = (
    "{% if tools %}<user>{% for t in tools %}{{ t.function.name }}{% endfor %}{% endif %}"
    "{% for m in messages %}{{ '<user>' if m.role == 'user' else '<bot>' }}{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %}{{ c.function.name }}{% endfor %}{% endfor %}"
    "{% if shout %}Z{% endif %}{% if add_generation_prompt %}<bot>{% endif %}"
)
PARTS = (
    "{% for m in messages %}<user>{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
)
CALL = {"type": "function", "function": {"name": "ADD", "arguments": {"a": 1}}}
USER = {"role": "user", "content": "AB"}
BOT = {"role": "assistant", "content": "CD"}
LIMIT = SHAPE["max_position_embeddings"]


def engine_with(plain: Engine, template: str) -> Engine:
    engine = copy.copy(plain)
    engine.tokenizer = copy.deepcopy(plain.tokenizer)
    engine.tokenizer.chat_template = template
    return engine


def prompt_of(engine: Engine, messages: Any, **settings: Any) -> str:
    """The rendered prompt that a generation is given."""
    generation = engine.session().start(messages, max_new_tokens=1, **settings)
    text: str = engine.tokenizer.decode(generation.state.tokens[0, : generation.state.longest])
    return text


@contextmanager
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_tool_calls_need_no_content(plain: Engine) -> None:
    engine = engine_with(plain, TOOLS)
    for message in ({"tool_calls": [CALL]}, {"content": None, "tool_calls": [CALL]}):
        messages = [USER, {"role": "assistant", **message}, {"role": "tool", "content": "C"}]
        assert prompt_of(engine, messages) == "<user>AB<bot>ADD<bot>C<bot>"


def test_the_arguments_of_a_chat_template_reach_it(plain: Engine) -> None:
    engine = engine_with(plain, TOOLS)
    schema = {"type": "function", "function": {"name": "ADD", "parameters": {}}}

    def ADD(a: int) -> int:
        """Add.

        Args:
            a: a number.
        """
        return a

    with no_warnings():
        for tool in (schema, ADD):
            assert prompt_of(engine, [USER], tools=[tool]) == "<user>ADD<user>AB<bot>"
        assert prompt_of(engine, [USER], chat_template_kwargs={"shout": 1}) == "<user>ABZ<bot>"
        assert prompt_of(engine, [USER], add_generation_prompt=False) == "<user>AB"
        assert prompt_of(engine, [USER, BOT], continue_final_message=True) == "<user>AB<bot>CD"
        other = {"chat_template": "{{ messages[0].content }}"}
        assert prompt_of(engine, [USER], chat_template_kwargs=other) == "AB"
    tokens = tiny.tokens(engine, [USER], max_new_tokens=3, temperature=0)
    streamed = engine.stream([USER], max_new_tokens=3, temperature=0, tools=[schema])
    list(streamed)
    called = engine.generate([[USER]], max_new_tokens=3, temperature=0, tools=[schema])
    assert isinstance(called, list)
    assert streamed.result.token_ids == called[0].token_ids != tokens


def test_arguments_that_a_template_does_not_use_are_warned_of(plain: Engine) -> None:
    with pytest.warns(UserWarning, match="does not use tools, thinking: no effect"):
        prompt_of(plain, [USER], tools=[CALL], chat_template_kwargs={"thinking": True})


def test_text_parts_are_read_whether_or_not_the_template_knows_them(plain: Engine) -> None:
    parts = [{"type": "text", "text": "AB"}, {"type": "text", "text": "CD"}]
    message = [{"role": "user", "content": parts}]
    assert prompt_of(engine_with(plain, PARTS), message) == "<user>[AB][CD]"
    single = [{"role": "user", "content": parts[:1]}]
    assert prompt_of(plain, single) == "<user>AB<bot>"
    adding = engine_with(plain, "{{ '<user>' + messages[0].content }}")
    assert prompt_of(adding, single) == "<user>AB"


EITHER = (
    "{% for m in messages %}<user>{% if m.content is string %}{% set c = m.content %}{% else %}"
    "{% set c = '' %}{% endif %}{{ c }}{% endfor %}"
)
WRITTEN = {
    "a text of strings alone": EITHER,
    "repr": "{% for m in messages %}<user>{{ m.content }}{% endfor %}",
    "JSON": "{% for m in messages %}<user>{% if m.content is string %}{{ m.content }}"
    "{% else %}{{ m.content | tojson(indent=2) }}{% endif %}{% endfor %}",
    "parts": "{% for m in messages %}<user>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
    "parts of users alone": "{% for m in messages %}<user>{% if m.content is string %}"
    "{{ m.content }}{% elif m.role == 'user' %}{{ m.content[0].text }}{% endif %}{% endfor %}",
}


@pytest.mark.parametrize("template", WRITTEN)
@pytest.mark.parametrize("continued", [False, True])
def test_no_template_loses_or_writes_out_text_parts(
    plain: Engine, template: str, continued: bool
) -> None:
    engine = engine_with(plain, WRITTEN[template])
    for kind in (list, tuple, UserList):
        for text in ("AB", "\u00e9\u4e2d"):
            part = MappingProxyType({"type": "text", "text": text})
            messages = [
                {"role": "user", "content": kind([part])},
                {"role": "assistant", "content": kind([{"type": "text", "text": "CD"}])},
            ]
            strings = [{"role": "user", "content": text}, BOT]
            wanted = prompt_of(engine, strings, continue_final_message=continued)
            assert prompt_of(engine, messages, continue_final_message=continued) == wanted


def test_parts_stay_where_a_template_reads_them_alone_and_skips_another_message(
    plain: Engine,
) -> None:
    engine = engine_with(plain, PARTS.replace("messages", "messages[1:]"))
    parts = [{"type": "text", "text": "AB"}, {"type": "text", "text": "CD"}]
    skipped = {"role": "system", "content": parts}
    assert prompt_of(engine, [skipped, {"role": "user", "content": parts}]) == "<user>[AB][CD]"


def label(value: Any) -> str:
    return "memoryview" if isinstance(value, memoryview) else ascii(value)[:40]


BAD_MESSAGES: list[tuple[Any, list[str]]] = [
    ([USER, {"content": "C"}], ["message 1 has no role"]),
    ([USER, "C"], ["message 1 is str", "role and content"]),
    ([USER, 5], ["message 1 is int"]),
    ([USER, {"role": "user"}], ["message 1 has no content"]),
    ([{"role": "user", "contents": "AB"}], ["message 0 has no content"]),
    ([{"role": 3, "content": "AB"}], ["role of message 0", "3"]),
    ([{"role": "user", "content": 3}], ["content of message 0", "not int"]),
    ([{"role": "user", "content": b"AB"}], ["content of message 0", "bytes"]),
    (
        [USER, {"role": "user", "content": {"type": "text", "text": "AB"}}],
        ["content of message 1 is a mapping with ['type', 'text']", "a list of parts"],
    ),
    (
        [USER, {"role": "user", "content": [{"type": "image", "url": "x"}]}],
        ["part 0 of message 1 is of type 'image'", "text alone"],
    ),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        ["type 'image_url'", "text alone"],
    ),
    ([{"role": "user", "content": ["AB"]}], ["part 0 of message 0", "'type': 'text'"]),
    ([{"role": "user", "content": [{"type": "text"}]}], ["part 0 of message 0 has no text"]),
    ([{"role": "user", "content": "A\ud800"}], ["message 0", "surrogate", "character 1"]),
    ([[USER], [USER, {"content": "C"}]], ["in prompt 1: message 1 has no role"]),
    (USER, ["one chat message is no prompt"]),
]


@pytest.mark.parametrize(("messages", "says"), BAD_MESSAGES, ids=label)
def test_what_is_not_understood_of_messages_is_named(
    plain: Engine, messages: Any, says: list[str]
) -> None:
    with pytest.raises(PromptError) as error:
        plain.generate(messages, max_new_tokens=1)
    assert all(part in str(error.value) for part in says), error.value


BAD_PROMPTS: list[tuple[Any, list[str]]] = [
    (b"AB", ["cannot be bytes", "decode it"]),
    (bytearray(b"AB"), ["cannot be bytearray"]),
    (memoryview(b"AB"), ["cannot be memoryview"]),
    (["AB", b"AB"], ["item 1", "bytes"]),
    ([1, "AB"], ["item 0", "a token id among prompts"]),
    ([1, 2, 2.5], ["item 0", "token id"]),
    (["AB", 2.5], ["item 1", "float"]),
    (["AB", None], ["item 1", "NoneType"]),
    (["AB", {"text": "x"}], ["item 1", "a mapping with ['text']"]),
    ({"text": "AB"}, ["a mapping with ['text']"]),
    ("A\ud83d", ["half of a surrogate pair", "character 1", "surrogatepass"]),
    (["AB", "\udc00"], ["in prompt 1", "surrogate"]),
    ({"input_ids": [[1, 2]], "attention_mask": [1, 1]}, ["must have the same shape"]),
    ({"input_ids": [1, 2], "attention_mask": [[1, 1]]}, ["must have the same shape"]),
    ({"input_ids": [1, 2], "attention_mask": [0.5, 1]}, ["attention_mask must be zeros and ones"]),
    ({"input_ids": [1, 2], "attention_mask": 1}, ["attention_mask must be zeros and ones"]),
    ({"input_ids": [[1, 2], 3]}, ["input_ids must be ints [T] or [B, T]"]),
    ({"input_ids": [1, [2, 3]]}, ["input_ids must be ints"]),
    ({"input_ids": [[[1]]]}, ["input_ids must be ints"]),
    ({"input_ids": 5}, ["input_ids must be ints", "not 5"]),
    ({"input_ids": None}, ["input_ids must be ints", "None"]),
    ({"input_ids": "AB"}, ["input_ids must be ints", "'AB'"]),
    ({"input_ids": torch.ones(2)}, ["input_ids must be ints"]),
    (np.ones(2), ["integer array", "float64"]),
    (np.array(5), ["integer array"]),
    (np.array(["AB"]), ["integer array"]),
    (
        {"input_ids": [1, 2], "pixel_values": torch.zeros(1, 3, 2, 2)},
        ["pixel_values", "text alone"],
    ),
    ({"input_ids": [1, 2], "input_features": np.zeros(3)}, ["input_features", "text alone"]),
    ({"input_ids": [1, 2], "inputs_embeds": torch.zeros(1, 2, 4)}, ["inputs_embeds"]),
    ({"input_ids": [1, 2], "position_ids": [3, 4]}, ["position_ids", "text alone"]),
    ({"input_ids": [1, 2], "token_type_ids": torch.tensor([[0, 1]])}, ["token_type_ids other"]),
    ({"input_ids": [1, 2], "token_type_ids": [0, 1]}, ["token_type_ids other"]),
]


@pytest.mark.parametrize(("prompt", "says"), BAD_PROMPTS, ids=label)
def test_what_is_not_understood_of_prompts_is_named(
    plain: Engine, prompt: Any, says: list[str]
) -> None:
    with pytest.raises(PromptError) as error:
        plain.generate(prompt, max_new_tokens=1)
    assert all(part in str(error.value) for part in says), error.value


def test_whole_numbers_of_any_type_are_token_ids(plain: Engine) -> None:
    wanted = tiny.tokens(plain, [5, 9, 1], max_new_tokens=2, temperature=0)
    ids = [np.int64(5), np.int32(9), 1]
    assert tiny.tokens(plain, ids, max_new_tokens=2, temperature=0) == wanted


def test_arrays_are_prompts_and_what_text_does_not_depend_on_is_left_out(plain: Engine) -> None:
    settings = {"max_new_tokens": 2, "temperature": 0}
    rows = tiny.tokens(plain, [[5, 9, 1], [4, 4, 4]], **settings)
    assert tiny.tokens(plain, np.array([5, 9, 1]), **settings) == rows[0]
    assert tiny.tokens(plain, np.array([[5, 9, 1], [4, 4, 4]], dtype=np.uint16), **settings) == rows
    assert tiny.tokens(plain, [np.array([5, 9, 1]), [4, 4, 4]], **settings) == rows
    encoded = {
        "input_ids": [torch.tensor([5, 9, 1]), np.array([4, 4, 4])],
        "attention_mask": torch.ones(2, 3, dtype=torch.bool),
        "token_type_ids": torch.zeros(2, 3, dtype=torch.int64),
        "special_tokens_mask": [[0, 0, 1], [0, 0, 0]],
        "length": [3, 3],
        "pixel_values": None,
    }
    assert tiny.tokens(plain, encoded, **settings) == rows


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"tools": [CALL]}, "tools: for chat messages alone"),
    ({"tools": []}, "tools: for chat messages alone"),
    ({"chat_template_kwargs": {}}, "chat_template_kwargs: for chat messages alone"),
    ({"add_generation_prompt": False}, "add_generation_prompt: for chat messages"),
    ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs: for chat messages"),
    ({"chat_template_kwargs": {"tokenize": False}}, "cannot have tokenize"),
    ({"chat_template_kwargs": {"tools": []}}, "tools is an argument of its own"),
    ({"chat_template_kwargs": "shout"}, "must be a mapping"),
    ({"tools": "ADD"}, "tools must be a list"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "exclude each other"),
    ({"skip_special_tokens": None}, "skip_special_tokens=None"),
    ({"generation_config": 3}, "generation_config must be"),
    ({"stop": "A\ud800"}, "half of a surrogate pair"),
    ({"progress": "no"}, "progress='no'"),
    ({"bad_words_ids": [[1], [2, 10**6]]}, "bad_words_ids has token id 1000000"),
    ({"sequence_bias": {(3, 10**6): 1.0}}, "sequence_bias has token id 1000000"),
    ({"sequence_bias": [[[10**6], 1.0]]}, "sequence_bias has token id 1000000"),
    ({"sequence_bias": 5}, "sequence_bias=5: it must be a list of pairs"),
    ({"sequence_bias": [[5, 2.0]]}, "sequence_bias=.*: it must be a list of pairs"),
    ({"sequence_bias": [[[5], 2.0, 3.0]]}, "sequence_bias=.*: it must be a list of pairs"),
    ({"sequence_bias": {(5,): 2}}, "sequence_bias=.*: it must be a list of pairs"),
    ({"eos_token_id": 10**20}, "eos_token_id=.*: it must be a token id"),
    ({"suppress_tokens": [10**20]}, "suppress_tokens=.*: it must be a list of token ids"),
    ({"max_new_tokens": np.bool_(True)}, "max_new_tokens=True"),
    ({"batch_size": np.bool_(True)}, "batch_size must be"),
    ({"seed": torch.tensor(1.5)}, "seed must be an int"),
    ({"top_k": np.int64(-1)}, "top_k=-1"),
    ({"eos_token_id": -1}, "eos_token_id=-1"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD_ARGUMENTS, ids=label)
def test_arguments_that_cannot_be_meant_are_refused(
    plain: Engine, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        plain.generate("AB", **{"max_new_tokens": 1, **arguments})


def test_numbers_of_numpy_and_torch_are_numbers(plain: Engine) -> None:
    def tokens(whole: Any, real: Any) -> Any:
        settings = {"temperature": real(0.75), "top_p": real(0.5), "eos_token_id": [whole(7)]}
        lengths = {"max_new_tokens": whole(5), "batch_size": whole(2), "top_k": whole(9)}
        return tiny.tokens(plain, PROMPTS, seed=whole(3), **settings, **lengths)

    wanted = tokens(int, float)
    assert tokens(np.int64, np.float32) == tokens(torch.tensor, torch.tensor) == wanted
    several = tiny.tokens(plain, PROMPTS, max_new_tokens=4, temperature=1, seed=[1, 2, 3])
    for seeds in (np.array([1, 2, 3]), torch.tensor([1, 2, 3]), [np.int64(1), 2, 3]):
        assert tiny.tokens(plain, PROMPTS, max_new_tokens=4, temperature=1, seed=seeds) == several


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tokenizer": "gpt2"}, "tokenizer must be .* not str 'gpt2': load it with AutoTokenizer"),
        ({"tokenizer": 3}, "not int 3"),
        ({"plugins": None}, "plugins must be a list of plugin modules or objects, not None"),
        ({"plugins": "x"}, "not 'x'"),
        ({"plugins": ["x"]}, "plugins has 'x': import the plugin"),
    ],
    ids=str,
)
def test_what_an_engine_is_made_of_is_checked(
    model: Any, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        Engine(model, strategy="plain", **arguments)


def test_an_unknown_name_in_a_mapping_of_settings_is_told(plain: Engine) -> None:
    with pytest.raises(UnknownNameError, match=r"of generation_config 'temperture'.*'temperature'"):
        plain.generate("AB", max_new_tokens=1, generation_config={"temperture": 0.7})


def bos_tokenizer(prefix: Sequence[str]) -> hf.PreTrainedTokenizerFast:
    """The tiny tokenizer, putting special tokens before every text."""
    tokenizer = tiny.make_tokenizer()
    ids = [(name, tokenizer.convert_tokens_to_ids(name)) for name in prefix]
    tokenizer.backend_tokenizer.post_processor = tk.processors.TemplateProcessing(
        single=f"{' '.join(prefix)} $A", special_tokens=ids
    )
    return tokenizer


@pytest.mark.parametrize("prefix", [["<bot>"], ["<user>", "<bot>"]])
def test_a_bos_that_the_tokenizer_adds_once_more_is_warned_of(prefix: list[str]) -> None:
    tokenizer, text = bos_tokenizer(prefix), "".join(prefix)

    def ids(prompt: Any) -> list[list[int]]:
        return encode(prompt, tokenizer, vocab_size=60, context=50).rows

    with no_warnings():
        (once,) = ids("AB")
        assert tokenizer.decode(once) == text + "AB"
        assert ids(tokenizer("AB")) == ids([tokenizer("AB")["input_ids"]]) == [once]
        tiny_one = tiny.make_tokenizer()  # adds none: who writes two wants two
        encode(text + text + "AB", tiny_one, vocab_size=60, context=50)
    for prompt in (text + "AB", ["AB", text + "AB"]):
        with pytest.warns(UserWarning, match=f"begins with '{text}'.*once more"):
            ids(prompt)


# As published with the weights, keys that transformers itself does not read included.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen-7B-Chat": {
        "chat_format": "chatml", "eos_token_id": 43, "pad_token_id": 43, "max_window_size": 6144,
        "max_new_tokens": 512, "do_sample": True, "top_k": 0, "top_p": 0.5,
        "transformers_version": "4.31.0",
    },
    "Qwen2.5-7B-Instruct": {
        "bos_token_id": 43, "do_sample": True, "eos_token_id": [45, 43], "pad_token_id": 43,
        "repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8,
    },
    "Llama-2-7b-chat": {
        "_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "max_length": 4096,
        "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6,
    },
    "Llama-3.1-8B-Instruct": {
        "bos_token_id": 28, "do_sample": True, "eos_token_id": [41, 48, 49], "temperature": 0.6,
        "top_p": 0.9,
    },
    "gemma-3-4b-it": {
        "bos_token_id": 2, "cache_implementation": "hybrid", "do_sample": True,
        "eos_token_id": [1, 46], "pad_token_id": 0, "top_k": 64, "top_p": 0.95,
    },
    "Phi-3-mini": {
        "_from_model_config": True, "bos_token_id": 1, "eos_token_id": [30, 31, 37],
        "pad_token_id": 30,
    },
    "DeepSeek-V3": {
        "_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "do_sample": True,
        "temperature": 0.6, "top_p": 0.95,
    },
    "Mistral-7B": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2},
    "gpt-oss-20b": {
        "bos_token_id": 48, "do_sample": True, "eos_token_id": [52, 49, 42], "pad_token_id": 49,
    },
    "Baichuan2-7B-Chat": {
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "user_token_id": 55,
        "assistant_token_id": 56, "max_new_tokens": 2048, "temperature": 0.3, "top_k": 5,
        "top_p": 0.85, "repetition_penalty": 1.05, "do_sample": True,
    },
    "others": {
        "trust_remote_code": True, "pad_token_id": [3, 4], "num_beams": 1, "use_cache": False,
        "num_beam_groups": 1, "early_stopping": True, "length_penalty": 0.8, "output_scores": True,
        "return_dict_in_generate": True, "output_attentions": True, "suppress_tokens": [],
        "begin_suppress_tokens": None, "bad_words_ids": [], "watermarking_config": None,
        "frequency_penalty": 0.0, "num_return_sequences": 1, "guidance_scale": 1.0,
        "prefill_chunk_size": 256, "forced_eos_token_id": None, "sequence_bias": {},
        "is_assistant": False, "num_assistant_tokens": 5, "max_matching_ngram_size": 2,
    },
}  # fmt: skip


def own(published: dict[str, Any]) -> Engine:
    """An engine on a tiny model with a generation config of its own."""
    model = tiny.make_model()
    config = hf.GenerationConfig()
    for name, value in published.items():
        setattr(config, name, value)
    model.generation_config = config
    return Engine(model, strategy="plain", tokenizer=tiny.make_tokenizer())


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_published_generation_config_does_not_stop_a_model(family: str) -> None:
    published = PUBLISHED[family]
    engine = own(published)
    with no_warnings():
        result = engine.session().start(PROMPTS[0], max_new_tokens=4)
        list(result)
    config = result.request.sampling.config
    for name in ("temperature", "top_k", "top_p", "repetition_penalty", "do_sample"):
        assert getattr(config, name) == published.get(name)
    eos = published.get("eos_token_id", [])
    assert result.request.sampling.eos == tuple(eos if isinstance(eos, list) else [eos])


def test_published_settings_are_those_of_the_same_call() -> None:
    published = PUBLISHED["Baichuan2-7B-Chat"]
    names = ("temperature", "top_k", "top_p", "repetition_penalty", "do_sample", "eos_token_id")
    wanted = tiny.tokens(
        own({}), PROMPTS[0], max_new_tokens=9, seed=3, **{name: published[name] for name in names}
    )
    assert tiny.tokens(own(published), PROMPTS[0], max_new_tokens=9, seed=3) == wanted


CHANGING: dict[str, Any] = {
    "num_beams": 4,
    "penalty_alpha": 0.6,
    "guidance_scale": 1.5,
    "forced_eos_token_id": 7,
    "forced_bos_token_id": 7,
    "exponential_decay_length_penalty": (3, 1.1),
    "encoder_repetition_penalty": 1.2,
    "token_healing": True,
    "dola_layers": "high",
    "watermarking_config": hf.WatermarkingConfig(),
    "constraints": [3],
    "force_words_ids": [[3]],
}


@pytest.mark.parametrize("name", CHANGING)
def test_own_settings_that_could_change_the_text_are_named_with_the_way_to_unset_them(
    name: str,
) -> None:
    engine = own({name: CHANGING[name]})
    with pytest.raises(OptionError) as error:
        engine.generate(PROMPTS[0], max_new_tokens=2)
    message = str(error.value)
    assert f"{name}=" in message and "the model's own generation_config" in message
    assert f"engine.generation_config.{name} = None" in message
    off = message.split(f"Give {name}=")[1].split(" in the call")[0]
    wanted = tiny.tokens(own({}), PROMPTS[0], max_new_tokens=2, temperature=0)
    settings = {"max_new_tokens": 2, "temperature": 0}
    assert tiny.tokens(engine, PROMPTS[0], **settings, **{name: ast.literal_eval(off)}) == wanted
    setattr(engine.generation_config, name, None)
    assert tiny.tokens(engine, PROMPTS[0], **settings) == wanted


@pytest.mark.parametrize(
    "fields", [{"top_p": 2.0}, {"temperature": -1.0}, {"top_k": 2.5}, {"eos_token_id": -2}], ids=str
)
def test_own_values_that_are_not_allowed_are_named_as_the_models(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(OptionError, match=f"{name}=.* of the model's own generation_config: it m"):
        own(fields).generate(PROMPTS[0], max_new_tokens=2)


def test_minus_one_in_a_models_own_config_means_none() -> None:
    for published, eos in (({"eos_token_id": -1}, ()), ({"eos_token_id": [-1, 9]}, (9,))):
        engine = own({"top_k": -1, "do_sample": True, **published})
        sampling = engine.session().start(PROMPTS[0], max_new_tokens=2).request.sampling
        assert (sampling.config.top_k, sampling.eos) == (None, eos)


def test_what_the_model_itself_bounds_is_named_as_the_models() -> None:
    with pytest.raises(OptionError, match="model's own: give max_new_tokens"):
        own({"max_length": 5}).generate(PROMPTS[0])


def test_generation_config_comes_before_the_models_and_after_the_call() -> None:
    engine = own({"do_sample": True, "temperature": 0.5, "top_k": 7, "eos_token_id": [9, 3]})

    def resolved(**settings: Any) -> Any:
        return engine.session().start(PROMPTS[0], **settings).request.sampling

    given = hf.GenerationConfig(temperature=0.8, top_p=0.9, max_new_tokens=5)
    with no_warnings():
        sampling = resolved(generation_config=given)
        config = sampling.config
        assert (config.temperature, config.top_k, config.top_p) == (0.8, 7, 0.9)
        assert (sampling.max_new_tokens, sampling.eos) == (5, (9, 3))
        assert resolved(generation_config=given, top_p=0.4).config.top_p == 0.4
        assert resolved(generation_config=given, max_length=14).max_new_tokens is None
        assert (
            resolved(generation_config=hf.GenerationConfig(max_length=14)).config.max_length == 14
        )
        assert resolved(generation_config={"top_k": 3}).config.top_k == 3
        same = resolved(generation_config=engine.generation_config).config
    assert same.temperature == 0.5
    assert engine.generation_config.temperature == 0.5, "the model's own is left as it is"
    assert given.top_k is None, "and so is the caller's"
    settings = {"seed": 4, "max_new_tokens": 6}
    wanted = tiny.tokens(engine, PROMPTS, temperature=1.3, top_k=0, **settings)
    config = hf.GenerationConfig(temperature=1.3, top_k=0)
    assert tiny.tokens(engine, PROMPTS, generation_config=config, **settings) == wanted
    stream = engine.stream(PROMPTS[0], generation_config=config, **settings)
    list(stream)
    assert stream.result.token_ids == wanted[0]


def test_generation_config_is_not_ignored_in_silence(plain: Engine) -> None:
    with pytest.raises(OptionError, match=r"num_beams=4 of generation_config.*Leave it out"):
        plain.generate(PROMPTS[0], generation_config=hf.GenerationConfig(num_beams=4))
    with pytest.raises(OptionError, match=r"top_p=3.0 of generation_config: it must be"):
        plain.generate(PROMPTS[0], generation_config={"top_p": 3.0})
    given = hf.GenerationConfig(cache_implementation="static", temprature=1, max_new_tokens=2)
    with pytest.warns(UserWarning, match="cache_implementation, temprature of generation_config"):
        plain.generate(PROMPTS[0], generation_config=given)
    with pytest.warns(UserWarning, match="temperature has no effect on greedy"):
        plain.generate(PROMPTS[0], generation_config={"temperature": 0.7, "max_new_tokens": 2})


IDLE: list[tuple[dict[str, Any], str]] = [
    ({"do_sample": False, "temperature": 0.9}, "temperature has no effect.*give do_sample=True"),
    ({"do_sample": False, "top_p": 0.9}, "top_p has no effect.*give do_sample=True"),
    ({"temperature": 0, "top_k": 5}, "top_k has no effect.*give temperature > 0"),
    ({"do_sample": True, "temperature": 0}, "do_sample has no effect.*give temperature > 0"),
    ({"min_p": 0.1}, "min_p has no effect.*give temperature > 0"),
]


@pytest.mark.parametrize(("arguments", "says"), IDLE, ids=label)
def test_settings_that_greedy_decoding_leaves_idle_are_warned_of(
    plain: Engine, arguments: dict[str, Any], says: str
) -> None:
    with pytest.warns(UserWarning, match=says):
        plain.generate(PROMPTS[0], max_new_tokens=1, **arguments)


def test_what_the_context_cuts_is_warned_of(plain: Engine) -> None:
    long = [1] * (LIMIT - 3)
    for asked in ({"max_new_tokens": 4}, {"max_length": LIMIT + 1}):
        with pytest.warns(UserWarning, match=f"context of {LIMIT} tokens.*leaves 3") as seen:
            results = plain.generate([long, [1, 2]], eos_token_id=[], **asked)
        assert len(seen) == 1, "once for a batch"
        assert seen[0].filename == __file__, "shown where the call is"
        assert isinstance(results, list)
        assert len(results[0].token_ids) == 3
    with no_warnings():
        plain.generate(long, max_new_tokens=3)
        plain.generate(long, max_length=LIMIT)
        plain.generate(long)  # nothing was asked for


HINTS = {
    "assistant_model": ["draft_model"],
    "stop_token_ids": ["eos_token_id"],
    "max_tokens": ["did you mean 'max_new_tokens'?"],
    "tool": ["did you mean 'tools'?"],
    "skip_special_token": ["did you mean 'skip_special_tokens'?"],
    "batchsize": ["did you mean 'batch_size'?"],
    "chat_template_kwarg": ["did you mean 'chat_template_kwargs'?"],
}


@pytest.mark.parametrize("name", HINTS)
def test_hints_name_what_is_near_or_what_stands_for_it(plain: Engine, name: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        plain.generate(PROMPTS[0], **{name: 1})
    assert all(hint in str(error.value) for hint in HINTS[name]), error.value


@pytest.mark.parametrize(
    "name", ["callback", "synced_gpus", "presence_penalty", "inputs", "max_seconds"]
)
def test_no_hint_names_a_far_neighbour(plain: Engine, name: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        plain.generate(PROMPTS[0], **{name: 1})
    assert "did you mean" not in str(error.value)


def test_the_known_arguments_are_all_of_generates(plain: Engine) -> None:
    with pytest.raises(UnknownNameError) as error:
        plain.generate(PROMPTS[0], nonsense=1)
    own = set(inspect.signature(Engine.generate).parameters) - {"self", "fields"}
    assert own <= set(error.value.known)
    assert own - set(Fields.model_fields) == set(ARGUMENTS)
    assert {"no_repeat_ngram_size", "do_sample", "eos_token_id"} <= set(error.value.known)


def test_an_argument_of_generate_alone_is_told_where_it_is_not_taken(plain: Engine) -> None:
    with pytest.raises(OptionError, match=r"batch_size is an argument of Engine.generate alone"):
        plain.stream(PROMPTS[0], batch_size=2)


def test_a_bare_name_is_looked_up_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """As in Engine("gpt2"). The hub is another folder here: the tests have no network."""
    import huggingface_hub

    tiny.save_model(tiny.make_model(), tmp_path)
    asked = []

    def download(name: str, **_: Any) -> str:
        asked.append(name)
        if name == "some-model":
            return str(tmp_path)
        raise huggingface_hub.errors.LocalEntryNotFoundError("no such repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert tiny.tokens(Engine("some-model", strategy="plain"), [1], max_new_tokens=1)
    with pytest.raises(UnknownNameError, match=r"did you mean 'chat-7m'.*hub did not give"):
        Engine("chat-7n", strategy="plain")
    Engine("chat-7m", strategy="plain")
    assert set(asked) == {"some-model", "chat-7n"}
    drafted = {"strategy": "draft_model", "tokenizer": None}
    engine = Engine(tiny.make_model(), drafter="some-model", **drafted)
    assert engine.generate([1, 2], max_new_tokens=3).stats.draft_forwards
    with pytest.raises(UnknownNameError, match=r"unknown drafter 'eagel'.*hub did not give"):
        Engine(tiny.make_model(), drafter="eagel", **drafted)
