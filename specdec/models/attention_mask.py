"""Attention masks as each architecture takes them: one tensor, a window, or one per layer type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig

from specdec.errors import UnsupportedModelError

Mask = Tensor | dict[str, Tensor]
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class MaskForm:
    """The form in which a model takes its attention mask.

    Attributes:
        windows: for each layer type the size of its window, None for no window. One entry named
            ``""`` where the model takes a single tensor.
        additive: whether the attention adds the mask (``eager``) or takes booleans (``sdpa``).
    """

    windows: Mapping[str, int | None]
    additive: bool

    @classmethod
    def of(cls, config: PretrainedConfig) -> MaskForm:
        """Read off a model's text config.

        Raises:
            UnsupportedModelError: layer types that no mask describes.
        """
        additive = config._attn_implementation == "eager"
        window = getattr(config, "sliding_window", None)
        types = set(getattr(config, "layer_types", None) or [])
        if unknown := types - {_FULL, _SLIDING}:
            raise UnsupportedModelError(
                f"a {config.model_type} model cannot be verified as a tree: it has layers of type "
                f"{', '.join(sorted(unknown))}. Use a model whose attention is a function of a "
                "mask and of position ids (full or sliding window); verifier='path' decodes this "
                "one, slowly"
            )
        if types:
            return cls({t: window if t == _SLIDING else None for t in sorted(types)}, additive)
        return cls({"": window}, additive)

    @property
    def windowed(self) -> bool:
        """Whether any layer has a window."""
        return any(window is not None for window in self.windows.values())

    def build(
        self, visible: Tensor, positions: Tensor, slot_positions: Tensor, dtype: torch.dtype
    ) -> Mask:
        """The mask of one forward.

        Args:
            visible: ``[B, n, S]`` bool.
            positions: ``[B, n]`` int64, of the queries.
            slot_positions: ``[B, S]`` int64, of the keys. A window compares positions, not slots:
                siblings of a tree share one.
            dtype: of an additive mask.
        """
        masks = {}
        for name, window in self.windows.items():
            seen = visible
            if window is not None:
                # Not their difference: it would be int64 for every pair of query and key.
                seen = visible & (positions[:, :, None] < (slot_positions + window)[:, None, :])
            masks[name] = self._finish(seen[:, None], dtype)
        return masks.get("", masks)

    def causal(self, positions: Tensor, dtype: torch.dtype) -> Mask | None:
        """The mask of a forward over whole rows, each token of which attends to those before it.

        None where attention that is given no mask does so by itself.

        Args:
            positions: ``[B, n]`` int64.
            dtype: of an additive mask.
        """
        if not (self.windowed or self.additive):
            return None
        batch, n = positions.shape
        causal = torch.ones(n, n, dtype=torch.bool, device=positions.device).tril()
        return self.build(causal.expand(batch, -1, -1), positions, positions, dtype)

    def _finish(self, seen: Tensor, dtype: torch.dtype) -> Tensor:
        if not self.additive:
            return seen
        bias = torch.zeros_like(seen, dtype=dtype)
        return bias.masked_fill_(~seen, torch.finfo(dtype).min)
