"""Heads of one depth each: what training computes is what the drafter computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from specdec import Engine, SpecdecError
from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Features as Read
from specdec.training.documents import Documents
from specdec.training.hidden_state_store import HiddenStateStore
from specdec_plugins.hydra import training as hydra
from specdec_plugins.medusa import training as medusa

TRAINERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "medusa": (medusa.MedusaRecipe, medusa.MedusaTraining, {"heads": 3}),
    "medusa-own": (
        medusa.MedusaRecipe,
        medusa.MedusaTraining,
        {"heads": 3, "projection": "own", "draft_vocab_size": 40},
    ),
    "medusa-shared": (
        medusa.MedusaRecipe,
        medusa.MedusaTraining,
        {"heads": 2, "layers": 1, "projection": "shared", "draft_vocab_size": 40},
    ),
    "hydra": (hydra.HydraRecipe, hydra.HydraTraining, {"heads": 3, "draft_vocab_size": 40}),
    "hydra-own": (
        hydra.HydraRecipe,
        hydra.HydraTraining,
        {"heads": 3, "layers": 2, "projection": "own"},
    ),
    "hydra++": (
        hydra.HydraRecipe,
        hydra.HydraTraining,
        {"heads": 3, "prefix": True, "projection": "shared", "draft_vocab_size": 40},
    ),
}
Made = tuple[Any, Any]
pytestmark = pytest.mark.filterwarnings("ignore:the head predicts")


def make(name: str, target: Any, documents: Any, **changes: Any) -> Any:
    factory, kind, given = TRAINERS[name]
    return factory(kind(**{**given, **changes}), target, documents)


@pytest.fixture(params=TRAINERS)
def made(request: pytest.FixtureRequest, decoding: Engine, documents: Documents) -> Made:
    """A recipe and random heads of it."""
    recipe = make(request.param, decoding.target, documents)
    torch.manual_seed(0)
    heads = recipe.make()
    with torch.no_grad():
        for weight in heads.parameters():
            weight += 0.2 * torch.randn_like(weight)
    return recipe, heads


def drafted(decoding: Engine, recipe: Any, heads: Any, ids: list[int], root: int) -> list[Tensor]:
    """Draft logits of the real drafter along the text, below the root and each token after it."""
    own = decoding.with_strategy(recipe.strategy, drafter=heads)
    with torch.no_grad():
        read = own.target.read(torch.tensor([ids[:root]]))
        state = tiny.make_state([ids[: root + 1]])
        proposer: Any = own.parts.drafter.start(state, Read(read, [0]))
        found, before = [], None
        for depth in range(recipe.heads):
            before = Frontier(
                depth,
                torch.tensor([[ids[root + depth]]]),
                torch.tensor([[depth]]),
                torch.zeros(1, 1, dtype=torch.int64),
                torch.zeros(1, 1),
                torch.tensor([[root]]),
                before,
            )
            found.append(proposer.propose(before).logits[0, 0])
    return found


def test_a_place_of_a_depth_is_what_the_drafter_computes_there(
    made: Made, decoding: Engine, features: HiddenStateStore, batch_of: Any
) -> None:
    recipe, heads = made
    first, second = 3, 11
    batch = batch_of([[first, second]])
    with torch.no_grad():
        outputs = recipe.outputs(heads, batch)
        for document, at in ((first, 0), (second, features.documents.lengths[first])):
            ids, _ = features.documents.document(document)
            for root in (1, 2, len(ids) - recipe.heads):
                wanted = drafted(decoding, recipe, heads, ids, root)
                for depth in range(recipe.heads):
                    row = outputs[depth, 0, at + root + depth]
                    own = recipe.score(heads, row[None], depth)[0]
                    torch.testing.assert_close(own, wanted[depth], atol=1e-4, rtol=1e-3)


def test_a_place_is_learned_where_the_heads_can_draft_its_likeliest_token(
    made: Made, batch_of: Any
) -> None:
    recipe, _ = made
    batch = batch_of([[0, 1, 2], [3, 4, 5]])
    for depth in range(recipe.heads):
        learned = recipe.learned(batch, depth)
        assert learned.any() and not (learned & ~batch.counted(1)).any()
        assert not (learned & (batch.positions < depth + 1)).any()
        if recipe.vocabulary is not None:
            assert torch.isin(batch.best[learned], recipe.vocabulary).all()


def test_the_loss_falls_and_agreement_rises(made: Made, check_learning: Any) -> None:
    check_learning(made[0], share=0.95)


def test_the_loss_is_the_entropy_where_the_heads_are_right(made: Made, batch_of: Any) -> None:
    """Below it, or above zero at the target's own distribution, weights or places would be off."""
    recipe, heads = made
    batch = batch_of([[0, 1, 2]])
    with torch.no_grad():
        loss = recipe.loss(heads, batch)
        least = torch.zeros(())
        p = recipe.target_score(batch.hidden.last).softmax(-1)
        entropy = -(p * p.clamp(min=1e-30).log()).sum(-1)
        for depth in range(recipe.heads):
            learned = recipe.learned(batch, depth)
            least = least + recipe.decay**depth * entropy[learned].mean()
    assert loss >= least


def test_saved_heads_draft_as_the_trained_ones_in_bfloat16_and_training_goes_on_from_them(
    made: Made, decoding: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe, heads = made
    with torch.no_grad():
        for weight in heads.parameters():
            weight.copy_(weight.bfloat16())
    recipe.save(heads, tmp_path)
    loaded, own = (
        decoding.with_strategy(recipe.strategy, drafter=each) for each in (str(tmp_path), heads)
    )
    for prompt in ([5, 9, 30], [6, 7, 8, 9]):
        a, b = (each.generate(prompt, max_new_tokens=20).stats for each in (loaded, own))
        assert a.tau == b.tau and a.alpha == b.alpha
    factory, kind, given = TRAINERS[request.node.callspec.params["made"]]
    again = factory(kind(start=str(tmp_path)), decoding.target, None).make()
    for name, weight in heads.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    with pytest.raises(SpecdecError, match="heads is that of the heads in start="):
        factory(kind(start=str(tmp_path), heads=given["heads"]), decoding.target, None)
