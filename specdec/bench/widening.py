"""Where each weight of a small Llama-type network lies in a larger one that computes the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from specdec.bench.presets import Shape
from specdec.errors import CheckpointError

# lm_head weights of the tokens that are added, on the constant channel; within float16.
_NEVER = (-3e4, -6e4)
# Their new entries may hold anything: what those read is zero, or what they write is never read.
_READERS = frozenset({"lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"})


@dataclass(frozen=True)
class Axis:
    """How one axis of a weight grows: the new entry ``into[i]`` is the old entry ``source[i]``."""

    size: int
    into: Tensor
    source: Tensor

    @staticmethod
    def leading(old: int, new: int) -> Axis:
        """The old entries come first."""
        return Axis(new, torch.arange(old), torch.arange(old))


class Widening:
    """Makes the weights of the larger network, one at a time.

    See :mod:`specdec.bench.inflate` for why the outputs are the same.

    Args:
        old, new: sizes; ``old`` fits into ``new``.
        constant: value of the constant channel in the embeddings; 0 if there is none.
        gain: of an EAGLE head: by what its ``fc`` multiplies that channel.
        dtype, device, seed: of the new weights.
    """

    def __init__(
        self,
        old: Shape,
        new: Shape,
        *,
        constant: float,
        gain: float = 1.0,
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
    ) -> None:
        self.old, self.new, self.constant, self.gain = old, new, constant, gain
        self.dtype, self.device = dtype, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.old_tokens, new_tokens = old.vocab_size or 0, new.vocab_size or 0
        channels = Axis.leading(old.hidden_size, new.hidden_size)
        neurons = Axis.leading(old.intermediate_size, new.intermediate_size)
        tokens = Axis.leading(self.old_tokens, new_tokens)
        everything = torch.arange(new_tokens)
        pair = torch.cat([channels.into, channels.into + new.hidden_size])
        pairs = Axis(2 * new.hidden_size, pair, torch.arange(2 * old.hidden_size))
        queries, keys = self._heads()
        rms = math.sqrt(old.hidden_size / new.hidden_size)
        # name: rows, columns (None for a vector), factor
        self.rules: dict[str, tuple[Axis, Axis | None, float]] = {
            "embed_tokens": (
                Axis(new_tokens, everything, everything % self.old_tokens),
                channels,
                1,
            ),
            "lm_head": (tokens, channels, 1),
            "fc": (channels, pairs, 1),
            "q_proj": (queries, channels, math.sqrt(new.head_dim / old.head_dim)),
            "k_proj": (keys, channels, 1),
            "v_proj": (keys, channels, 1),
            "o_proj": (channels, queries, 1),
            "gate_proj": (neurons, channels, 1),
            "up_proj": (neurons, channels, 1),
            "down_proj": (channels, neurons, 1),
            "input_layernorm": (channels, None, rms),
            "post_attention_layernorm": (channels, None, rms),
            "norm": (channels, None, rms),
        }

    def _heads(self) -> tuple[Axis, Axis]:
        """Rows of queries, and of keys and values."""
        old, new = self.old, self.new
        copies, ratio = new.copies(old), new.head_dim // old.head_dim
        half = torch.arange(old.head_dim // 2) * ratio
        self.dims = torch.cat([half, half + new.head_dim // 2])
        head = torch.arange(old.num_attention_heads)
        kv_head, member = head // old.group, head % old.group
        home = (kv_head * copies + member // new.group) * new.group + member % new.group
        kv_home = torch.arange(old.num_key_value_heads * copies)
        queries = self._rows(new.num_attention_heads, home, head)
        return queries, self._rows(new.num_key_value_heads, kv_home, kv_home // copies)

    def _rows(self, heads: int, into: Tensor, source: Tensor) -> Axis:
        old, new = self.old.head_dim, self.new.head_dim
        return Axis(
            heads * new,
            (into[:, None] * new + self.dims).flatten(),
            (source[:, None] * old + torch.arange(old)).flatten(),
        )

    @torch.no_grad()
    def weight(self, name: str, source: Tensor | None) -> Tensor:
        """The widened weight.

        Args:
            name: its name in a state dict, e.g. ``model.layers.0.mlp.up_proj.weight``.
            source: the small network's; None in a layer that the small network does not have.

        Raises:
            CheckpointError: a name that is no part of a Llama-type model or an EAGLE-1/2 head.
        """
        *_, kind, leaf = ("", *name.split("."))
        if kind not in self.rules or leaf not in ("weight", "bias"):
            raise CheckpointError(f"{name} is no weight of a Llama-type model or EAGLE-1/2 head")
        rows, columns, factor = self.rules[kind]
        if leaf == "bias":
            columns = None
        new = self._blank(kind, (rows.size,) if columns is None else (rows.size, columns.size))
        if source is not None:
            self._place(new, rows, columns, source, factor)
        if self.constant:
            self._add_constant_channel(kind, new)
        return new

    def _blank(self, kind: str, size: tuple[int, ...]) -> Tensor:
        """What is there before the small network's weights are written over it."""
        new = torch.zeros(size, dtype=self.dtype, device=self.device)
        if "norm" in kind:
            return new.fill_(1)
        if len(size) == 2 and kind in _READERS:
            new.normal_(std=self.old.hidden_size**-0.5, generator=self.generator)
        if kind == "k_proj":
            idle = torch.ones(self.new.head_dim, dtype=torch.bool)
            idle[self.dims] = False
            new.view(-1, self.new.head_dim, *size[1:])[:, idle.to(self.device)] = 0
        return new

    def _place(
        self, new: Tensor, rows: Axis, columns: Axis | None, source: Tensor, factor: float
    ) -> None:
        precise = torch.promote_types(source.dtype, self.dtype)
        values = source.to(precise)[rows.source.to(source.device)] * factor
        into = rows.into.to(self.device)
        if columns is None:
            new[into] = values.to(new)
        else:
            values = values[:, columns.source.to(source.device)]
            new[into[:, None], columns.into.to(self.device)] = values.to(new)

    def _add_constant_channel(self, kind: str, new: Tensor) -> None:
        channel = self.old.hidden_size
        if kind == "embed_tokens":
            new[:, channel] = self.constant
        elif kind == "fc" and new.dim() == 2:
            new[channel, channel] = self.gain
        elif kind == "norm":
            new[channel] = math.sqrt(self.old.hidden_size / self.new.hidden_size) / self.constant
        elif kind == "lm_head":
            new[:, channel] = 0
            added = new[self.old_tokens :, channel]
            added.copy_(torch.linspace(*_NEVER, len(added)))
        elif kind in _READERS and new.dim() == 2:
            new[:, channel] = 0
