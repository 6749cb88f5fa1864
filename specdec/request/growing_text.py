"""Growing text: the settled text of tokens so far, and what a later token may still change."""

from __future__ import annotations

import copy

from specdec.request.token_bytes import REPLACEMENT, Kind, TokenBytes, split

# Tokens that an incomplete character may have: it has 3 bytes, each token at least one of them.
_PARTS = 3


class GrowingText:
    """Decodes tokens one by one, a few of them at a time, to the text of all at once.

    Args:
        pieces: of the tokenizer.
    """

    def __init__(self, pieces: TokenBytes) -> None:
        self._pieces = pieces
        self._settled = _Text()
        # The last tokens, decoded along with the next one: those of an incomplete character and
        # one before them, since tokenizers write the first token of a text in another way.
        self._window: list[int] = []
        self._shown = 0  # characters of the decoded window that are settled
        self._incomplete = b""
        self._parts: tuple[int, ...] = ()  # the incomplete character's tokens: bytes of each
        self._run = _Run()

    def copy(self) -> GrowingText:
        """Another one that goes on from here."""
        other = copy.copy(self)
        other._settled, other._run = self._settled.copy(), self._run.copy()
        return other

    @property
    def settled(self) -> int:
        """Characters that no later token can change."""
        return self._settled.length

    @property
    def length(self) -> int:
        """Characters so far, without an incomplete one at the end."""
        return self._settled.length + self._run.text.length

    @property
    def text(self) -> str:
        """The text as it is if it ends here."""
        if self._run.count:
            return self._settled.since(0) + self._run.whole()
        return self._settled.since(0) + self._pieces.decode(self._window)[self._shown :]

    def since(self, start: int) -> str:
        """The text from a place on, without an incomplete character at the end."""
        beyond = start - self._settled.length
        return (
            self._run.text.since(beyond)
            if beyond >= 0
            else (self._settled.since(start) + self._run.text.since(0))
        )

    def push(self, token: int) -> int:
        """Add a token; how much of the text before it stands as it was."""
        piece = self._pieces.piece(token)
        before = self.length
        if piece.kind is Kind.NOTHING:
            return before
        if piece.kind is Kind.RUN:
            return self._push_byte(token, piece.data)
        stands = self._end_run()
        self._window = [*self._window, token]
        text = self._pieces.decode(self._window)
        end = len(text) - self._changeable(piece.kind, piece.data, text)
        self._settled.add(text[self._shown : end])
        self._shown = max(self._shown, end)
        self._trim(len(text) - end)
        return stands

    def _changeable(self, kind: Kind, data: bytes, text: str) -> int:
        """How many characters at the end of the window's text a later token may change."""
        if kind is Kind.PART:
            _, self._incomplete = split(self._incomplete + data)
            parts = (*self._parts, len(data)) if self._incomplete else ()
            while sum(parts[1:]) >= len(self._incomplete) > 0:
                parts = parts[1:]
            self._parts = parts
            return 1 if parts else 0
        self._incomplete = b""
        unknown = kind is Kind.UNKNOWN and text.endswith(REPLACEMENT)
        self._parts = (*self._parts, 1)[-_PARTS:] if unknown else ()
        return min(len(self._parts), len(text) - len(text.rstrip(REPLACEMENT)))

    def _trim(self, changeable: int) -> None:
        """Forget tokens that the next one's text does not depend on."""
        window = self._window[-(len(self._parts) + 1) :]
        if len(window) < len(self._window):
            # Without its first tokens a text begins in another way, but ends in the same.
            self._window, self._shown = window, len(self._pieces.decode(window)) - changeable

    def _push_byte(self, token: int, byte: bytes) -> int:
        before = self.length
        if not self._run.count:
            self._settled.add(self._pieces.decode(self._window)[self._shown :])
            self._incomplete, self._parts = b"", ()
        run = self._run
        text = run.push(byte)
        if run.count == 1 and not self._window and text:
            text = self._pieces.decode([token])  # the first space of a text may be left out
        self._run.last = token
        if run.valid:
            run.text.add(text)
            return before
        self._settled.add(text)
        return min(before, self._settled.length - len(text))

    def _end_run(self) -> int:
        """Settle the bytes before a token that is none; how much of the text stands as it was."""
        run, before = self._run, self.length
        if not run.count:
            return before
        stands = self._settled.length if run.incomplete else before
        if run.valid:
            self._settled.add(run.whole())
        self._window = [run.last]
        self._shown = len(self._pieces.decode(self._window))
        self._run = _Run()
        return stands


class _Run:
    """Neighbouring tokens of one byte each, whose text is that of all of them, or none.

    Attributes:
        count: how many.
        last: the last one's id.
        text: the whole characters, while the bytes are valid.
        incomplete: bytes of a character that may still become whole.
        valid: whether no byte is known to be invalid.
    """

    def __init__(self) -> None:
        self.count, self.last, self.incomplete, self.valid = 0, -1, b"", True
        self.text = _Text()

    def copy(self) -> _Run:
        other = copy.copy(self)
        other.text = self.text.copy()
        return other

    def push(self, byte: bytes) -> str:
        """Add a byte; the text that it adds, or all of it if this byte made all invalid."""
        self.count += 1
        if not self.valid:
            return REPLACEMENT
        try:
            text, self.incomplete = split(self.incomplete + byte, "strict")
        except UnicodeDecodeError:
            self.valid, self.incomplete, self.text = False, b"", _Text()
            return REPLACEMENT * self.count
        return text

    def whole(self) -> str:
        """The text of a run that ends here, as far as it is not settled."""
        return REPLACEMENT * self.count if self.incomplete else self.text.since(0)


class _Text:
    """A string that grows at its end."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.length = 0

    def copy(self) -> _Text:
        other = copy.copy(self)
        other._pieces = list(self._pieces)
        return other

    def add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self.length += len(text)

    def since(self, start: int) -> str:
        """From a place on; the end is near and the beginning may be far."""
        missing, taken = self.length - start, []
        for piece in reversed(self._pieces):
            if missing <= 0:
                break
            taken.append(piece[-missing:])
            missing -= len(piece)
        return "".join(reversed(taken))
