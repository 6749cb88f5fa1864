"""The training scripts refuse what they would finish on garbage with."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import transformers as hf

SCRIPTS = Path(__file__).parent.parent / "scripts"
MARKS = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


@pytest.fixture(scope="module")
def common() -> Any:
    pytest.importorskip("numpy")
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module("common")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def fitting(common: Any) -> Any:
    """A tokenizer as train_tokenizer.py makes it."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        made = importlib.import_module("train_tokenizer")
    finally:
        sys.path.remove(str(SCRIPTS))
    return made.wrap(made.train(iter(["some text, some more text"]), 300))


def without_marks(tokenizer: Any) -> Any:
    return tiny.make_tokenizer()


def as_plain_words(tokenizer: Any) -> Any:
    """Of the same names, but no special tokens: in a text they come apart."""
    import tokenizers as tk

    vocab = {mark: index for index, mark in enumerate(MARKS)}
    vocab |= {chr(c): len(MARKS) + c for c in range(32, 127)}
    inner = tk.Tokenizer(tk.models.WordLevel(vocab, unk_token=" "))
    inner.pre_tokenizer = tk.pre_tokenizers.Split("", "isolated")
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner)


def with_another_eos(tokenizer: Any) -> Any:
    tokenizer.eos_token = "<|user|>"
    return tokenizer


def without_a_template(tokenizer: Any) -> Any:
    tokenizer.chat_template = None
    return tokenizer


def with_another_layout(tokenizer: Any) -> Any:
    tokenizer.chat_template = tokenizer.chat_template.replace("<|assistant|>", "<|assistant|>\n")
    return tokenizer


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_marks, r"it has no <\|bos\|>, <\|end\|>, <\|pad\|>, <\|user\|>, <\|assistant\|>"),
        (as_plain_words, "is no special token"),
        (with_another_eos, r"eos_token is <\|user\|>, not <\|end\|>"),
        (without_a_template, "no chat template"),
        (with_another_layout, "another layout"),
    ],
)
def test_a_tokenizer_that_does_not_fit_the_layout_is_refused(
    common: Any, fitting: Any, tmp_path: Path, change: Callable[[Any], Any], says: str
) -> None:
    change(copy.deepcopy(fitting)).save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match=says) as error:
        common.load_tokenizer(tmp_path)
    assert "train_tokenizer.py" in str(error.value)


def test_a_tokenizer_that_fits_is_taken(common: Any, fitting: Any, tmp_path: Path) -> None:
    fitting.save_pretrained(tmp_path)
    tokenizer = common.load_tokenizer(tmp_path)
    assert common.special_ids(tokenizer, *MARKS) == list(range(6))
    with pytest.raises(SystemExit, match="no <none>"):
        common.special_ids(tokenizer, "<none>")
