"""The target's hidden states, as drafters get them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HiddenStates:
    """What a forward hands to drafters.

    Attributes:
        last: ``[B, n, H]``, the input of the lm_head (after the final norm).
        aux: auxiliary hidden states ``[B, n, H]`` (``aux_hidden_size`` channels, of most models H),
            of the layers that the drafter asked for, in its order; none of them has gone through
            the final norm.
    """

    last: Tensor
    aux: tuple[Tensor, ...] = ()

    def gather(self, index: Tensor) -> HiddenStates:
        """The rows ``index [B, m]``: ``[B, m, H]`` each."""
        return HiddenStates(_rows(self.last, index), tuple(_rows(each, index) for each in self.aux))

    def split(self, n: int) -> tuple[HiddenStates, HiddenStates]:
        """The first n tokens, and the others."""
        aux = [(each[:, :n], each[:, n:]) for each in self.aux]
        first, others = (tuple(part) for part in zip(*aux, strict=True)) if aux else ((), ())
        return HiddenStates(self.last[:, :n], first), HiddenStates(self.last[:, n:], others)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    if x.shape[1] == index.shape[1] == 1:
        return x.clone()  # a copy all the same: x may be a buffer of a graph
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[-1]))
