"""Text of a growing token sequence, given out as soon as no later token can change it."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_PARTIAL = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns new tokens into text, one at a time.

    Args:
        tokenizer: decodes token ids.
        skip_special_tokens: leave out eos and its like.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._tokens: list[int] = []
        self._settled = ""
        self._settled_tokens = 0
        self._window = 0

    @property
    def text(self) -> str:
        """Everything so far; the end may be half a character."""
        return self._settled + self._tail()

    def push(self, token: int, stop: Sequence[str] = ()) -> bool:
        """Add a token; whether the text now contains one of ``stop``."""
        before = len(self.text) if stop else 0
        self._tokens.append(token)
        found = False
        if stop:
            reach = max(map(len, stop))
            recent = self.text[max(0, before - reach) :]
            found = any(s in recent for s in stop)
        self._settle()
        return found

    def _tail(self) -> str:
        context = self._decode(self._tokens[self._window : self._settled_tokens])
        return self._decode(self._tokens[self._window :])[len(context) :]

    def _settle(self) -> None:
        """Move the tail to the settled text once it ends with whole characters.

        A short window of settled tokens is decoded along with the tail, since some tokenizers
        write a token differently at the start of a text.
        """
        tail = self._tail()
        if tail and not tail.endswith(_PARTIAL):
            self._settled += tail
            self._window, self._settled_tokens = self._settled_tokens, len(self._tokens)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=self._skip)
        return text

    def streamable(self, stop: Sequence[str] = ()) -> str:
        """The text that no later token can change or cut, for streaming."""
        held = 0
        for string in stop:
            for size in range(min(len(string) - 1, len(self._settled)), held, -1):
                if self._settled.endswith(string[:size]):
                    held = size
                    break
        return self._settled[: len(self._settled) - held] if held else self._settled


def cut(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the first of the stop strings."""
    found = [index for s in stop if (index := text.find(s)) >= 0]
    return text[: min(found)] if found else text
