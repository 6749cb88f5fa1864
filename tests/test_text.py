"""Text of growing tokens: as decoded at once, settled as soon as it is certain, in linear time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tokenizers as tk
import transformers as hf

from specdec.checkpoints import load_tokenizer
from specdec.models import EMBEDDED

PARTS = ["\u20ac", "\U0001f600", "\u00e9", "\ufffd"]


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
    level = hf.convert_slow_tokenizer.bytes_to_unicode()
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
    "embedded": lambda: load_tokenizer(EMBEDDED.folder),
}
