"""Detokenizer: the text of a row, as soon as no later token can change or cut it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from specdec.request.growing_text import GrowingText
from specdec.request.token_bytes import REPLACEMENT, TokenBytes


class Detokenizer:
    """Turns new tokens into text, one at a time, in time that does not depend on their number.

    Stop strings are looked for in the text with special tokens, whether or not they are shown.

    Args:
        tokenizer: decodes token ids.
        skip_special_tokens: leave out eos and its like.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, skip_special_tokens: bool = True
    ) -> None:
        self._pieces = TokenBytes(tokenizer)
        self._skip = skip_special_tokens
        self._shown = GrowingText(self._pieces)
        # With special tokens. One and the same until a special token is left out; from then on
        # the marks say which length of the one belongs to which length of the other.
        self._full = self._shown
        self._marks: list[tuple[int, int]] = []
        self._end: int | None = None
        self._taken = 0

    @property
    def text(self) -> str:
        """Everything so far; the end may be half a character."""
        return self._shown.text

    @property
    def cut_text(self) -> str:
        """Everything so far, up to the first stop string."""
        return self.text[: self._end]

    def push(self, token: int, stop: Sequence[str] = ()) -> bool:
        """Add a token; whether the text now contains one of ``stop``."""
        if self._skip and self._pieces.piece(token).special:
            if self._full is self._shown:
                self._full = self._shown.copy()
                self._marks = [(self._full.length, self._shown.length)]
            stands = self._full.push(token)
        else:
            stands = self._full.push(token)
            if self._full is not self._shown:
                self._shown.push(token)
        if self._marks:
            self._marks.append((self._full.length, self._shown.length))
        if stop and self._end is None:
            start = max(0, stands - max(map(len, stop)) + 1)
            recent = self._full.since(start)
            found = [place for string in stop if (place := recent.find(string)) >= 0]
            if found:
                self._end = self._of_shown(start + min(found))
        return self._end is not None

    def streamable(self, stop: Sequence[str] = ()) -> str:
        """The text that no later token can change or cut, for streaming."""
        return self._shown.since(0)[: self._certain(stop)]

    def take(self, stop: Sequence[str] = ()) -> str:
        """What :meth:`streamable` has more than at the last call."""
        start, self._taken = self._taken, max(self._taken, self._certain(stop))
        return self._shown.since(start)[: self._taken - start]

    def _certain(self, stop: Sequence[str]) -> int:
        """How much of the text is streamable."""
        if self._end is not None:
            return min(self._end, self._shown.settled)
        full = self._full.settled
        held = 0
        if stop:
            most = max(map(len, stop)) - 1
            recent = self._full.since(max(0, full - most))[: min(full, most)]
            for string in stop:
                for size in range(min(len(string) - 1, len(recent)), held, -1):
                    if recent.endswith(string[:size]):
                        held = size
                        break
        return min(self._of_shown(full - held), self._shown.settled)

    def _of_shown(self, place: int) -> int:
        """A place in the text with special tokens as one in the text that is shown."""
        if not self._marks or place <= self._marks[0][0]:
            return place
        after = bisect_right(self._marks, (place, self._shown.length))
        if after == len(self._marks):
            return self._marks[-1][1]
        full, shown = self._marks[after]
        return max(self._marks[after - 1][1], shown - (full - place))


def cut(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the first of the stop strings."""
    found = [index for s in stop if (index := text.find(s)) >= 0]
    return text[: min(found)] if found else text


def text_of(
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[int],
    stop: Sequence[str] = (),
    *,
    skip_special_tokens: bool = True,
) -> str:
    """The text of a row's new tokens, up to the first stop string."""
    text: str = tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)
    if not stop:
        return text
    full: str = tokenizer.decode(tokens, skip_special_tokens=False)
    if cut(full, stop) == full:
        return text
    if full == text and not any(REPLACEMENT in string for string in stop):
        return cut(text, stop)
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens)
    for token in tokens:
        if detokenizer.push(token, stop):
            break
    return detokenizer.cut_text
