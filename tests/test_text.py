"""Text of growing tokens: as decoded at once, settled as soon as it is certain, in linear time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers as tk
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from examples import examples
from specdec.models.checkpoints import load_tokenizer
from specdec.plugin.embedded_model import EMBEDDED
from specdec.request.detokenizer import Detokenizer, cut, text_of
from specdec.request.token_bytes import REPLACEMENT, split


def byte_fallback() -> hf.PreTrainedTokenizerFast:
    """As sentencepiece's: words with a mark for the space before, and a token for each byte."""
    words = ["\u2581", "\u2581Hello", "He", "llo", "\u2581you", "x", "\ufffd", "\u20ac", "op", "st"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    model = tk.models.BPE(
        {name: index for index, name in enumerate(names)}, [], byte_fallback=True, unk_token="<unk>"
    )
    inner = tk.Tokenizer(model)
    inner.decoder = tk.decoders.Sequence(
        [
            tk.decoders.Replace("\u2581", " "),
            tk.decoders.ByteFallback(),
            tk.decoders.Fuse(),
            tk.decoders.Strip(" ", 1, 0),
        ]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def byte_level() -> hf.PreTrainedTokenizerFast:
    """As GPT-2's, with tokens that end one character and begin the next."""
    alphabet = sorted(tk.pre_tokenizers.ByteLevel.alphabet())
    level = bytes_to_unicode()
    parts = [b"\xa9\xc3", b"a\xe2", b"\x82\xac", b"\xacst", b"op", b"\xf0\x9f", b"\xef\xbf\xbd"]
    merged = ["".join(level[byte] for byte in part) for part in parts]
    vocab = {name: index for index, name in enumerate([*alphabet, *merged])}
    inner = tk.Tokenizer(tk.models.BPE(vocab, []))
    inner.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tk.decoders.ByteLevel()
    made = hf.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")
    made.add_special_tokens({"additional_special_tokens": ["<user>"]})
    return made


MAKERS: dict[str, Callable[[], Any]] = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "embedded": lambda: load_tokenizer(Path(EMBEDDED.model)),
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]()


@pytest.fixture(scope="module")
def kinds(tokenizer: Any) -> list[list[int]]:
    """Token ids of which any text can be made: parts of characters, special, unknown, others."""
    ids = list(range(len(tokenizer)))
    special = [t for t in ids if tokenizer.decode([t], skip_special_tokens=True) == ""]
    parts = [t for t in ids if REPLACEMENT in tokenizer.decode([t])]
    characters = [single_bytes(tokenizer, "\u20ac"), single_bytes(tokenizer, "\U0001f600")]
    return [ids, special, parts, [len(tokenizer) + 5], *characters]


def single_bytes(tokenizer: Any, text: str) -> list[int]:
    """The bytes of a text, a token each."""
    level = bytes_to_unicode()
    vocab = tokenizer.get_vocab()
    return [vocab.get(f"<0x{byte:02X}>", vocab.get(level[byte])) for byte in text.encode()]


def drawn(data: st.DataObject, kinds: list[list[int]], most: int = 12) -> list[int]:
    picks = data.draw(
        st.lists(st.tuples(st.integers(0, len(kinds) - 1), st.integers(0)), max_size=most)
    )
    tokens: list[int] = []
    for kind, number in picks:
        pool = kinds[kind]
        tokens += pool if kind >= 4 and number % 2 else [pool[number % len(pool)]]
    return tokens


@examples(50, many=300)
@given(data=st.data(), skip=st.booleans())
def test_text_is_that_of_decoding_at_once_and_is_never_taken_back(
    tokenizer: Any, kinds: list[list[int]], data: st.DataObject, skip: bool
) -> None:
    tokens = drawn(data, kinds)
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
    taken = ""
    for count, token in enumerate(tokens, start=1):
        detokenizer.push(token)
        taken += detokenizer.take()
        assert detokenizer.text == tokenizer.decode(tokens[:count], skip_special_tokens=skip)
        assert detokenizer.streamable() == taken
    assert tokenizer.decode(tokens, skip_special_tokens=skip).startswith(taken)


@examples(20, many=80)
@given(data=st.data())
def test_text_is_streamed_at_the_token_that_makes_it_certain(
    tokenizer: Any, kinds: list[list[int]], data: st.DataObject
) -> None:
    """Certain is what all continuations share; these are those that tell."""
    tokens = drawn(data, kinds, most=6)
    told = single_bytes(tokenizer, "x") + [
        single_bytes(tokenizer, text)[place]
        for text, place in (("\u0080", 1), ("\U00010000", 1), ("\u00e0", 1), ("\u20ac", 0))
    ]
    endings = [ends for size in range(4) for ends in itertools.product(told, repeat=size)]
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=False)
    for token in tokens:
        detokenizer.push(token)
    texts = [tokenizer.decode([*tokens, *ends]) for ends in endings]
    assert detokenizer.streamable() == common(texts)


@examples(50, many=300)
@given(data=st.data(), skip=st.booleans())
def test_a_stop_string_is_found_at_the_token_that_completes_it_and_cuts_the_stream(
    tokenizer: Any, kinds: list[list[int]], data: st.DataObject, skip: bool
) -> None:
    tokens = drawn(data, kinds)
    stop = []
    for _ in range(data.draw(st.integers(1, 2))):
        # Of a text that may have been, since a later byte can make others invalid.
        text = tokenizer.decode(tokens[: data.draw(st.integers(0, len(tokens)))])
        start = data.draw(st.integers(0, max(0, len(text) - 1)))
        stop.append(text[start : start + data.draw(st.integers(1, 8))])
    stop = [string for string in stop if string and REPLACEMENT not in string]
    ends = [n for n in range(1, len(tokens) + 1) if has(tokenizer.decode(tokens[:n]), stop)]
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
    taken, kept = "", 0
    for token in tokens:
        kept += 1
        if detokenizer.push(token, stop):
            break
        taken += detokenizer.take(stop)
    else:
        kept += 1
    assert kept == (ends[0] if ends else len(tokens) + 1)
    whole = text_of(tokenizer, tokens[:kept], stop, skip_special_tokens=skip)
    assert whole.startswith(taken)
    full = tokenizer.decode(tokens[:kept], skip_special_tokens=skip)
    assert full.startswith(whole) if ends or not skip else full == whole
    if not skip:
        assert whole == cut(full, stop)


def common(texts: Sequence[str]) -> str:
    """What all of them begin with."""
    letters = itertools.takewhile(lambda c: len(set(c)) == 1, zip(*texts, strict=False))
    return "".join(letter for letter, *_ in letters)


def has(text: str, stop: Sequence[str]) -> bool:
    return any(string in text for string in stop)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("<|end|>", "Hello"),  # special
        ("|end|> y", "Hello<"),  # from inside of a special token on into text
        ("llo<|end|>", "He"),  # from text into a special token
        ("o<|end|> you", "Hell"),  # across
        ("ou", "Hello<|end|> y"),  # after one
        ("Hello", ""),
        ("o y", "Hello<|end|> you<|end|>"),  # in the text that is shown, but not in the whole
    ],
)
def test_the_text_ends_where_the_stop_string_begins_in_the_text_with_special_tokens(
    stop: str, text: str, skip: bool
) -> None:
    tokenizer = MAKERS["embedded"]()
    end = tokenizer.eos_token_id
    assert tokenizer.decode([end]) == "<|end|>"
    tokens = [*tokenizer("Hello")["input_ids"], end, *tokenizer(" you")["input_ids"], end]
    tokens = [token for token in tokens if token != tokenizer.bos_token_id]
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
    given_out, kept = "", []
    for token in tokens:
        kept.append(token)
        ended = detokenizer.push(token, (stop,))
        given_out += detokenizer.take((stop,))
        if ended:
            break
    assert ended == (stop in tokenizer.decode(tokens))
    wanted = text.replace("<|end|>", "").removesuffix("<") if skip else text
    whole = text_of(tokenizer, kept, (stop,), skip_special_tokens=skip)
    assert whole == wanted
    assert wanted.startswith(given_out) and (given_out == wanted or not ended)


@pytest.mark.parametrize(
    ("last", "text"), [(b"\xff", "He" + 13 * REPLACEMENT), (b"", "He" + 13 * REPLACEMENT + "x")]
)
def test_a_byte_that_makes_others_invalid_completes_stop_strings_among_them(
    last: bytes, text: str
) -> None:
    """Four euro signs are text until a byte comes that makes all of them invalid."""
    tokenizer = byte_fallback()
    euro = ("\u20ac" * 4).encode()
    ends = [f"<0x{byte:02X}>" for byte in last] or [f"<0x{euro[0]:02X}>", "x"]
    tokens = tokenizer.convert_tokens_to_ids(["He", *(f"<0x{byte:02X}>" for byte in euro), *ends])
    assert tokenizer.decode(tokens) == text
    stop = ("e" + 3 * REPLACEMENT,)
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(token, stop) for token in tokens] == [False] * (len(tokens) - 1) + [
        True
    ]
    assert text_of(tokenizer, tokens, stop) == "H"


class Counting:
    """A tokenizer that counts the tokens it decodes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.calls = tokenizer, []

    def decode(self, tokens: list[int], **settings: Any) -> str:
        self.calls.append(len(tokens))
        return self._tokenizer.decode(tokens, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize("skip", [True, False])
def test_the_work_for_a_token_does_not_grow_whatever_the_bytes(tokenizer: Any, skip: bool) -> None:
    ids = range(len(tokenizer))
    parts = [t for t in ids if REPLACEMENT in tokenizer.decode([t])]
    runs = [
        [parts[0]],
        single_bytes(tokenizer, "\u00e9")[:1],  # each begins a character that the next one breaks
        single_bytes(tokenizer, "\u20ac"),
        single_bytes(tokenizer, "\U0001f600")[:3],
        single_bytes(tokenizer, "\U0001f600")[:3] + single_bytes(tokenizer, "a"),
        [tokenizer.eos_token_id or 0],
        [len(tokenizer) + 5],
        parts,
        list(ids),
    ]
    for run in runs:
        for stop in ((), ("never this", "nor\ufffdthat")):
            counting = Counting(tokenizer)
            detokenizer = Detokenizer(counting, skip_special_tokens=skip)  # type: ignore[arg-type]
            for token in itertools.islice(itertools.cycle(run), 600):
                detokenizer.push(token, stop)
                detokenizer.take(stop)
            assert max(counting.calls, default=0) <= 6
            assert sum(counting.calls) <= 12 * 600


def test_bytes_are_split_as_tokenizers_do() -> None:
    inner = byte_level()
    told = [0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5]
    level = bytes_to_unicode()
    ids = {byte: inner.convert_tokens_to_ids(level[byte]) for byte in told}
    for data in itertools.product(told, repeat=3):
        text, rest = split(bytes(data))
        assert text + REPLACEMENT * bool(rest) == inner.decode([ids[byte] for byte in data])
