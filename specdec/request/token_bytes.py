"""Bytes of single tokens, for characters that are made of several."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from enum import Enum

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile("<0x([0-9A-F]{2})>")


class Kind(Enum):
    """How a token's text depends on its neighbours."""

    NOTHING = "the tokenizer has no such token"
    TEXT = "whole characters"
    PART = "bytes, some of characters that other tokens begin or end"
    UNKNOWN = "perhaps a part of a character, of bytes that are not known"
    RUN = "one byte; neighbouring ones are valid together or not at all"


@dataclass(frozen=True)
class Piece:
    """One token.

    Attributes:
        kind: how it is read.
        data: its bytes, for the kinds ``PART`` and ``RUN``.
        special: whether ``skip_special_tokens`` leaves it out.
    """

    kind: Kind
    data: bytes = b""
    special: bool = False


class TokenBytes:
    """The pieces of a tokenizer, found out by what it decodes them to.

    Args:
        tokenizer: any of transformers'.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, Piece] = {}
        self._runs: bool | None = None

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens, special ones included."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return text

    def piece(self, token: int) -> Piece:
        """What a token is."""
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._look(token)
        return found

    def _look(self, token: int) -> Piece:
        name = self._tokenizer.convert_ids_to_tokens(token)
        if name is None:
            return Piece(Kind.NOTHING)
        text = self.decode([token])
        special = text != "" and not self._tokenizer.decode([token], skip_special_tokens=True)
        if isinstance(name, str) and (byte := _BYTE.fullmatch(name)) and text != name:
            kind = Kind.RUN if self._bytes_run() else Kind.UNKNOWN
            return Piece(kind, bytes.fromhex(byte[1]), special)
        if REPLACEMENT not in text or (isinstance(name, str) and REPLACEMENT in name):
            return Piece(Kind.TEXT, special=special)
        data = name if isinstance(name, bytes) else _byte_level(name)
        if data is None or data.decode("utf-8", "replace") != text:
            return Piece(Kind.UNKNOWN, special=special)
        return Piece(Kind.PART, data, special)

    def _bytes_run(self) -> bool:
        """Whether one invalid byte makes all its neighbours invalid, as for tokenizers'
        ``ByteFallback``."""
        if self._runs is None:
            names = [f"<0x{byte:02X}>" for byte in b"\xe2\x82\xac\xff"]
            ids = self._tokenizer.convert_tokens_to_ids(names)
            self._runs = self.decode(ids) == REPLACEMENT * 4
        return self._runs


def split(data: bytes, errors: str = "replace") -> tuple[str, bytes]:
    """The text of UTF-8 bytes, and the incomplete character at their end.

    Incomplete are at most 3 bytes, those that some continuation makes a character.

    Args:
        errors: ``"replace"`` writes U+FFFD for what is invalid, ``"strict"`` raises.

    Raises:
        UnicodeDecodeError: invalid bytes, if ``errors`` is ``"strict"``.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    text = decoder.decode(data)
    rest = decoder.getstate()[0]
    if len(rest.decode("utf-8", "replace")) > 1:
        # Half of a surrogate, for which Python waits in vain: UTF-8 has none.
        text, rest = text + decoder.decode(b"", final=True), b""
    return text, rest


_LEVEL = {character: byte for byte, character in bytes_to_unicode().items()}


def _byte_level(name: str) -> bytes | None:
    """The bytes of a byte-level token; None if it cannot be one."""
    try:
        return bytes(_LEVEL[character] for character in name)
    except KeyError:
        return None
