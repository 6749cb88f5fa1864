"""Sizes of Llama-type models, and those that inflated models are usually given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from specdec.errors import OptionError


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-type model, named as in its config.

    Attributes:
        vocab_size: tokens that the lm_head scores; None leaves a model's vocabulary as it is.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int | None = None

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Shape:
        """The shape that a config's fields describe, with transformers' defaults for the heads."""
        heads, hidden = fields["num_attention_heads"], fields["hidden_size"]
        return Shape(
            hidden_size=hidden,
            intermediate_size=fields["intermediate_size"],
            num_hidden_layers=fields.get("num_hidden_layers") or 1,
            num_attention_heads=heads,
            num_key_value_heads=fields.get("num_key_value_heads") or heads,
            head_dim=fields.get("head_dim") or hidden // heads,
            vocab_size=fields["vocab_size"],
        )

    def holding(self, small: Shape) -> Shape:
        """This shape with its vocabulary filled in, once ``small`` is known to fit into it.

        Raises:
            OptionError: a size that is too small, or sizes that no Llama model can have together.
        """
        whole = replace(self, vocab_size=self.vocab_size or small.vocab_size)
        ours, theirs = asdict(whole), asdict(small)
        # Heads are checked below: key-value heads may need copies.
        for name in ours.keys() - {"num_attention_heads", "num_key_value_heads"}:
            if ours[name] < theirs[name]:
                raise OptionError(
                    f"{name}={ours[name]} is smaller than the model's {theirs[name]}: a model can "
                    "only be inflated to a larger shape"
                )
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if heads % kv_heads or self.hidden_size % heads:
            raise OptionError(
                f"hidden_size={self.hidden_size}, num_attention_heads={heads} and "
                f"num_key_value_heads={kv_heads} make no Llama model: each must be a multiple of "
                "the next"
            )
        if self.head_dim % small.head_dim:
            raise OptionError(
                f"head_dim={self.head_dim} is no multiple of the model's {small.head_dim}: rope "
                "would turn by other angles"
            )
        if kv_heads < small.num_key_value_heads * self.copies(small):
            raise OptionError(
                f"num_attention_heads={heads} in {kv_heads} groups cannot hold the model's "
                f"{small.num_attention_heads} in {small.num_key_value_heads}: give more "
                f"num_key_value_heads, at least {small.num_key_value_heads * self.copies(small)}"
            )
        if whole.vocab_size != small.vocab_size and self.hidden_size == small.hidden_size:
            raise OptionError(
                f"vocab_size={whole.vocab_size} needs a channel to spare: give a hidden_size above "
                f"{small.hidden_size}, or the model's own vocab_size"
            )
        return whole

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.num_attention_heads // self.num_key_value_heads

    def copies(self, small: Shape) -> int:
        """Key-value heads here that one of ``small`` needs, so that its queries all find it."""
        return -(-small.group // self.group)


# Llama-like proportions; "1b" and "8b" are those of Llama-3.2-1B and Llama-3-8B.
PRESETS: Mapping[str, Shape] = MappingProxyType(
    {
        "240m": Shape(1024, 2816, 16, 16, 4, 64, 32000),
        "1b": Shape(2048, 8192, 16, 32, 8, 64, 128256),
        "8b": Shape(4096, 14336, 32, 32, 8, 128, 128256),
    }
)
