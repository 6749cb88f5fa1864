"""The settings that all contenders of a benchmark share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specdec.errors import OptionError


@dataclass(frozen=True)
class Settings:
    """The same for all contenders.

    Attributes:
        max_new_tokens: bound on the new tokens of a row.
        temperature: 0 is greedy.
        seed: prompt i of a set is decoded with ``seed + i``, in every repetition.
        batch_size: rows decoded together.
        repetitions: passes over all prompts.
        fields: other fields of transformers' GenerationConfig.

    Raises:
        OptionError: a count below 1.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 1
    repetitions: int = 3
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_size", "repetitions"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}={getattr(self, name)}: it must be at least 1")

    def decoding(self) -> dict[str, Any]:
        """As arguments of ``Engine.generate``, without the seed."""
        return {
            **self.fields,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
        }
