"""A streamer of transformers that keeps what it gets."""

from __future__ import annotations

from typing import Any

from transformers.generation.streamers import BaseStreamer


class Written(BaseStreamer):
    """The tokens of every ``put`` as lists, and ``"end"``."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def put(self, value: Any) -> None:
        self.got.append(value.tolist())

    def end(self) -> None:
        self.got.append("end")
