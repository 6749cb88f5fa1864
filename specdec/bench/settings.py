"""The settings that all contenders of a benchmark share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specdec.errors import OptionError

# Fields that another setting says.
SAID_BY = {
    "max_new_tokens": "max_new_tokens",
    "max_length": "max_new_tokens",
    "temperature": "temperature",
    "do_sample": "temperature",
    "seed": "seed",
}
# Fields that contenders cannot honour, and why.
REFUSED = {
    "num_return_sequences": "a benchmark decodes one text of each prompt",
    "stop_strings": "contenders of a benchmark end at eos or after max_new_tokens, not at strings",
}


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
        OptionError: a count below 1; a field that another setting says, or that contenders cannot
            honour.
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
        for name, value in self.fields.items():
            if name in SAID_BY:
                raise OptionError(
                    f"{name}={value!r} among the fields: the setting {SAID_BY[name]} says it, give "
                    "it there alone"
                )
            if name in REFUSED:
                raise OptionError(f"{name}={value!r}: {REFUSED[name]}; leave it out")

    def decoding(self) -> dict[str, Any]:
        """As arguments of ``Engine.generate``, without the seed."""
        return {
            **self.fields,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
        }
