"""Tokens by themselves, as text that can be told apart."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from specdec.request.token_bytes import REPLACEMENT

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


class TokenNames:
    """The text of single tokens.

    Args:
        tokenizer: None where texts are token ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str | None] = {}

    def of(self, token: int) -> str | None:
        """What a token is decoded to, with the space that begins a word; for a part of a character
        the tokenizer's own name of it. None without a tokenizer."""
        if token not in self._known:
            self._known[token] = self._look(token)
        return self._known[token]

    def _look(self, token: int) -> str | None:
        if self._tokenizer is None:
            return None
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        name = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(name, str):
            return text
        if not text or REPLACEMENT in text:
            return name
        begins = name.startswith(_SPACE) and not text.startswith(" ")
        return f" {text}" if begins else text
