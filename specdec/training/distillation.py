"""The target's logits, and the cross-entropy of draft distributions against its own, in pieces that
fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from specdec.drafting.projections import lm_head_of
from specdec.models.hf_target import HFTarget
from specdec.training.precision import dtype_within

Score = Callable[[Tensor], Tensor]

# Logits [S, c, V] that are held at a time; several copies of them live for a moment.
_CPU_LOGITS, _GPU_LOGITS = 1 << 22, 1 << 27


def cross_entropy(
    score: Score,
    outputs: Tensor,
    target_score: Score,
    hidden: Tensor,
    weights: Tensor,
    parameters: Sequence[Tensor] = (),
    held: int | None = None,
) -> Tensor:
    """``sum of w * (-sum over x of p(x) log q(x))`` with p = softmax(target_score(hidden)) and
    q = softmax(score(outputs)).

    No logits are kept for the backward pass: gradients are computed at once, piece by piece.

    Args:
        score: the draft logits ``[..., V]`` of ``[..., H]``.
        outputs: ``[S, M, H]``, for M places the outputs of S steps that all predict what follows
            there.
        target_score: the target's logits ``[..., V]`` of ``[..., H]``, without a gradient.
        hidden: ``[M, H]``, the target's hidden states.
        weights: ``[S, M]`` float32, 0 for what is not counted.
        parameters: what ``score`` depends on and is to be trained.
        held: logits that are held at a time; by default as many as suit the device.

    Returns:
        A number, float32.
    """
    total: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        score, target_score, held, hidden, weights, outputs, *parameters
    )
    return total


class _CrossEntropy(torch.autograd.Function):
    """Sums the loss and its gradients over pieces of the M places."""

    @staticmethod
    def forward(
        ctx: Any,
        score: Score,
        target_score: Score,
        held: int | None,
        hidden: Tensor,
        weights: Tensor,
        outputs: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        places = hidden.shape[0]
        total = torch.zeros((), device=outputs.device)
        by_output = torch.zeros_like(outputs)
        by_parameter = [torch.zeros_like(each) for each in parameters]
        needs = any(ctx.needs_input_grad)
        piece = 1
        if places:
            vocabulary = target_score(hidden[:1]).shape[-1]
            most = held or (_CPU_LOGITS if outputs.device.type == "cpu" else _GPU_LOGITS)
            piece = max(1, most // (vocabulary * len(outputs)))
        for start in range(0, places, piece):
            part = slice(start, start + piece)
            p = target_score(hidden[part]).float().softmax(-1)
            # In two dimensions: in three the product copies the weights for each step.
            given = outputs[:, part].flatten(0, 1).detach().requires_grad_(needs)
            with torch.set_grad_enabled(needs):
                logits = score(given).view(len(outputs), -1, p.shape[-1])
            w = weights[:, part, None]
            log_q = logits.detach().float().log_softmax(-1)
            for step, each in enumerate(log_q):
                total -= (weights[step, part] * torch.mul(p, each).sum(-1)).sum()
            if not needs:
                continue
            slope = log_q.exp_().sub_(p).mul_(w).to(logits.dtype)
            own, *rest = torch.autograd.grad(logits, [given, *parameters], slope)
            by_output[:, part] = own.view_as(by_output[:, part])
            for whole, more in zip(by_parameter, rest, strict=True):
                whole += more
        ctx.save_for_backward(by_output, *by_parameter)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        (slope,) = slopes
        return None, None, None, None, None, *(slope * each for each in ctx.saved_tensors)


class TargetScores:
    """The target's logits of its last hidden states; its lm_head is kept in the dtype that matrices
    are multiplied in."""

    def __init__(self, target: HFTarget) -> None:
        self._target = target
        self._lm_heads: dict[tuple[bool, torch.dtype], nn.Module] = {}

    def __call__(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits ``[..., D]`` of ``hidden [..., H]``.

        Args:
            tokens: ``[D]`` int64, those that the logits are of, in every call the same or all;
                None for all.
        """
        dtype = dtype_within(hidden.device, self._target.dtype)
        key = tokens is None, dtype
        if key not in self._lm_heads:
            self._lm_heads[key] = lm_head_of(self._target, tokens, dtype)
        return self._target.logits(hidden.to(dtype), self._lm_heads[key])


@torch.no_grad()
def likeliest(score: Score, outputs: Tensor) -> Tensor:
    """``[M]`` int64, the argmax of ``score(outputs [M, H])``, in pieces."""
    if not len(outputs):
        return torch.zeros(0, dtype=torch.int64, device=outputs.device)
    most = _CPU_LOGITS if outputs.device.type == "cpu" else _GPU_LOGITS
    piece = max(1, most // score(outputs[:1]).shape[-1])
    starts = range(0, len(outputs), piece)
    return torch.cat([score(outputs[start : start + piece]).argmax(-1) for start in starts])
