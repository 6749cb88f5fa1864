"""A toy tokenizer that writes every token as one character: stop strings can be examined."""

from __future__ import annotations

import string
from collections.abc import Iterable
from functools import cache

from transformers import PreTrainedTokenizerFast

ALPHABET = string.ascii_letters + string.digits
# What follows the alphabet: characters for private use, more than any vocabulary here has tokens.
_PRIVATE = 0xF0000


def toy_text(tokens: Iterable[int]) -> str:
    """The text of ``tokens``: 0 is ``a``, 1 is ``b``."""
    return "".join(map(_letter, tokens))


def _letter(token: int) -> str:
    return ALPHABET[token] if token < len(ALPHABET) else chr(_PRIVATE + token)


@cache
def toy_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of ``size`` tokens, each one character; it has no special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {_letter(token): token for token in range(size)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=ALPHABET[0]))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)
