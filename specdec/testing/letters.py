"""A toy tokenizer that writes every token as one letter, so that stop strings can be examined."""

from __future__ import annotations

import string
from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

ALPHABET = string.ascii_letters + string.digits


def letters(tokens: Iterable[int]) -> str:
    """The text of ``tokens``: 0 is ``a``, 1 is ``b``."""
    return "".join(ALPHABET[token] for token in tokens)


def letter_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of ``size`` tokens, 62 at most, each one letter; it has no special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {letter: token for token, letter in enumerate(ALPHABET[:size])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=ALPHABET[0]))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)
