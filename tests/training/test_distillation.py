"""The cross-entropy in pieces is the cross-entropy, with its gradients."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from specdec.training.distillation import cross_entropy, likeliest

H, V = 6, 11


def naive(
    score: nn.Module, outputs: Tensor, target: nn.Module, hidden: Tensor, weights: Tensor
) -> Tensor:
    p = target(hidden).softmax(-1).detach()
    return -(weights * (p * score(outputs).log_softmax(-1)).sum(-1)).sum()


@given(st.integers(1, 3), st.integers(0, 9), st.integers(1, 400), st.booleans())
def test_it_is_the_same_in_pieces_with_gradients(
    steps: int, places: int, held: int, capped: bool
) -> None:
    torch.manual_seed(0)
    lm_head, target = nn.Linear(H, V), nn.Linear(H, V)
    score = nn.Sequential(lm_head, nn.Tanh()) if capped else lm_head
    outputs = torch.randn(steps, places, H, requires_grad=True)
    hidden, weights = torch.randn(places, H), torch.rand(steps, places)
    parameters = list(lm_head.parameters())
    for scale in (1.0, 2.5):
        wanted = scale * naive(score, outputs, target, hidden, weights)
        own = scale * cross_entropy(score, outputs, target, hidden, weights, parameters, held)
        torch.testing.assert_close(own, wanted)
        for found, true in zip(
            torch.autograd.grad(own, [outputs, *parameters]),
            torch.autograd.grad(wanted, [outputs, *parameters]),
            strict=True,
        ):
            torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-4)


def test_the_target_gets_no_gradient_and_the_draft_needs_none() -> None:
    lm_head = nn.Linear(H, V)
    outputs, hidden = torch.randn(1, 4, H, requires_grad=True), torch.randn(4, H)
    cross_entropy(lm_head, outputs, lm_head, hidden, torch.ones(1, 4)).backward()
    assert lm_head.weight.grad is None and outputs.grad is not None
    with torch.no_grad():
        assert not cross_entropy(lm_head, outputs, lm_head, hidden, torch.ones(1, 4)).requires_grad


def test_the_likeliest_token_is_the_argmax() -> None:
    lm_head, outputs = nn.Linear(H, V), torch.randn(9, H)
    assert torch.equal(likeliest(lm_head, outputs), lm_head(outputs).argmax(-1))
    assert likeliest(lm_head, outputs[:0]).shape == (0,)
