"""What a head computes in training is what it computes while drafting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from heads import Written, head_for, in_layout
from torch import Tensor

from specdec import Engine, SpecdecError
from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Features as Read
from specdec.models.hf_target import HFTarget
from specdec.training.batch import Batch
from specdec.training.documents import Documents
from specdec.training.hidden_state_store import HiddenStateStore
from specdec_plugins.eagle.checkpoint import load_head, tensors_of
from specdec_plugins.eagle.training import EagleTraining, make_recipe
from specdec_plugins.eagle.unrolled import unrolled_mask

STEPS = 4
RECIPES: dict[str, dict[str, Any]] = {
    "eagle1": {"noise": 0.0},
    "unrolled": {"unrolled_steps": STEPS},
    "eagle3": {"unrolled_steps": STEPS, "draft_vocab_size": 40, "aux_layers": (1, 2)},
    "eagle3 normed": {
        "recipe": "eagle3",
        "unrolled_steps": STEPS,
        "aux_layers": (1, 2),
        "norm_output": True,
        "fc_norm": True,
        "layers": 2,
    },
    "eagle3 of Qwen3": {
        "recipe": "eagle3",
        "unrolled_steps": STEPS,
        "aux_layers": (1, 2),
        "qk_norm": True,
        "layers": 2,
    },
}
Made = tuple[Any, Any]
pytestmark = pytest.mark.filterwarnings("ignore:the head predicts")


@pytest.fixture(params=RECIPES)
def made(request: pytest.FixtureRequest, decoding: Engine, documents: Documents) -> Made:
    """A recipe and a random head of it."""
    given = {"recipe": request.param, "by_document": True, **RECIPES[request.param]}
    options = EagleTraining(**given)
    recipe: Any = make_recipe(options, decoding.target, documents)
    torch.manual_seed(0)
    head: Any = recipe.make()
    with torch.no_grad():
        for weight in head.parameters():
            weight += 0.2 * torch.randn_like(weight)
    return recipe, head


def outputs(recipe: Any, head: Any, batch: Batch, steps: int = STEPS) -> list[Tensor]:
    return list(recipe.unrolled(head, recipe.features(head, batch), batch, steps))


def logits(recipe: Any, head: Any, rows: Tensor) -> Tensor:
    return head.logits(rows) if hasattr(head, "logits") else recipe.target_logits(rows)


def drafted(decoding: Engine, head: Any, ids: list[int], root: int) -> list[Tensor]:
    """Draft logits of the real drafter along the text: after the root, then after each token that
    follows it, as draft tokens."""
    own = decoding.with_strategy("eagle2", drafter=head)
    target = own.target
    with torch.no_grad():
        read = target.read(torch.tensor([ids[:root]]))
        state = tiny.make_state([ids[: root + 1]])
        proposer: Any = own.parts.drafter.start(state, Read(read, [0]))
        found, before = [], None
        for depth in range(STEPS):
            frontier = Frontier(
                depth,
                torch.tensor([[ids[root + depth]]]),
                torch.tensor([[depth]]),
                torch.zeros(1, 1, dtype=torch.int64),
                torch.zeros(1, 1),
                torch.tensor([[root]]),
                before,
            )
            found.append(proposer.propose(frontier).logits[0, 0])
            before = frontier
    return found


def test_a_row_of_a_step_is_what_the_drafter_computes_on_a_chain(
    made: Made, decoding: Engine, features: HiddenStateStore, batch_of: Any
) -> None:
    recipe, head = made
    first, second = 3, 11
    batch = batch_of([[first, second]])
    start = features.documents.lengths[first]
    with torch.no_grad():
        steps = outputs(recipe, head, batch)
        for document, at in ((first, 0), (second, start)):
            ids, _ = features.documents.document(document)
            for root in (1, 2, len(ids) - STEPS):
                wanted = drafted(decoding, head, ids, root)
                for step, own in enumerate(steps):
                    row = own[0, at + root - 1 + step]
                    torch.testing.assert_close(
                        logits(recipe, head, row), wanted[step], atol=1e-4, rtol=1e-3
                    )


def test_a_row_sees_true_features_up_to_its_chain_and_then_the_chain() -> None:
    causal = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    mask = unrolled_mask(causal, 2)[0, 0].view(6, 3, 6)
    for t in range(6):
        assert mask[t, 0].nonzero()[:, 0].tolist() == list(range(max(0, t - 1)))
        assert mask[t, 1].nonzero()[:, 0].tolist() == ([t - 1] if t >= 1 else [])
        assert mask[t, 2].nonzero()[:, 0].tolist() == [t]


def test_no_document_changes_what_another_adds_to_the_loss(made: Made, batch_of: Any) -> None:
    recipe, head = made
    apart = [recipe.loss(head, batch_of([[document]])).item() for document in (2, 7, 9)]
    for windows in ([[2, 7, 9]], [[9], [7, 2]], [[7], [9], [2]]):
        together = recipe.loss(head, batch_of(windows)).item()
        assert together == pytest.approx(sum(apart) / 3, rel=1e-4)


def test_an_eagle3_head_can_draft_the_end_of_a_text(
    decoding: Engine, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding.target.model.generation_config, "eos_token_id", [59, 1])
    options = EagleTraining(recipe="eagle3", draft_vocab_size=8)
    made: Any = make_recipe(options, decoding.target, documents.only(range(9)))
    assert {1, 59} <= set(made.vocabulary.tolist()) and len(made.vocabulary) == 8


def test_the_drafter_takes_the_vocabulary_that_was_learned(
    decoding: Engine, documents: Documents, tmp_path: Path
) -> None:
    options = EagleTraining(recipe="unrolled", draft_vocab_size=8)
    made: Any = make_recipe(options, decoding.target, documents.only(range(9)))
    made.save(made.make(), tmp_path / "head")
    vocabulary = str(tmp_path / "head" / "vocabulary.json")
    engine = decoding.with_strategy(
        "eagle2", drafter=tmp_path / "head", options={"drafter": {"vocabulary": vocabulary}}
    )
    drafter: Any = engine.parts.drafter
    assert drafter.vocabulary.tolist() == made.vocabulary.tolist()
    engine.generate([3, 4, 5], max_new_tokens=3, temperature=0)


@pytest.mark.parametrize("recipe", ["eagle1", "unrolled", "eagle3"])
def test_places_whose_likeliest_token_is_outside_of_the_vocabulary_are_not_learned(
    decoding: Engine, documents: Documents, batch_of: Any, recipe: str
) -> None:
    options = EagleTraining(recipe=recipe, draft_vocab_size=8)  # type: ignore[arg-type]
    made: Any = make_recipe(options, decoding.target, documents)
    batch = batch_of([[0, 1, 2], [3, 4, 5]])
    counted, best = made.counted(batch, 0), batch.best.roll(-1, 1)
    inside = torch.isin(best, made.vocabulary)
    assert (counted & ~inside).any()
    assert torch.equal(made.learned(batch, 0), counted & inside)
    weights = made.weights(batch, counted.flatten().nonzero()[:, 0])
    assert torch.equal(weights[0] > 0, inside[counted])


def test_the_loss_falls_and_agreement_rises(made: Made, check_learning: Any) -> None:
    check_learning(made[0], share=0.9)


def test_a_saved_head_drafts_as_the_trained_one_in_bfloat16(
    made: Made, decoding: Engine, tmp_path: Path
) -> None:
    recipe, head = made
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(weight.bfloat16())
    recipe.save(head, tmp_path)
    options = {"policy": {"depth": 3, "top_k": 2, "budget": 6}}
    loaded, own = (
        decoding.with_strategy(recipe.strategy, drafter=each, options=options)
        for each in (str(tmp_path), head)
    )
    for prompt in ([5, 9, 30], [6, 7, 8, 9]):
        a, b = (each.generate(prompt, max_new_tokens=20).stats for each in (loaded, own))
        assert a.tau == b.tau and a.alpha == b.alpha
    again = EagleTraining(recipe=recipe.options.recipe, start=str(tmp_path))
    resumed = make_recipe(again, decoding.target, None).make()  # type: ignore[arg-type]
    for name, weight in head.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"recipe": "unrolled", "norm_output": True}, "norm_output changes nothing in"),
        ({"recipe": "unrolled", "qk_norm": True}, "qk_norm changes nothing in"),
        ({"recipe": "eagle1", "qk_norm": True}, "qk_norm changes nothing in"),
        ({"start": "head", "qk_norm": True}, "qk_norm is that of the head in start='head'"),
        ({"recipe": "eagle3", "feature_weight": 1}, "feature_weight changes nothing in"),
        ({"recipe": "eagle1", "unrolled_steps": 4}, "unrolled_steps changes nothing in"),
        ({"recipe": "unrolled", "noise": 0.1}, "noise changes nothing in"),
        ({"start": "head", "layers": 2}, "layers is that of the head in start='head'"),
        (
            {"recipe": "eagle3", "start": "head", "draft_vocab_size": 9},
            "draft_vocab_size is that of the head",
        ),
        ({"recipe": "eagle3", "aux_layers": (1, 9)}, "9 is none of the hidden states 0 to 4"),
        ({"heads": 5}, "the hidden size 32 must be a multiple"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    decoding: Engine, documents: Documents, options: Any, says: str
) -> None:
    with pytest.raises(SpecdecError, match=says):
        make_recipe(EagleTraining(**options), decoding.target, documents).make()


@pytest.mark.parametrize("recipe", ["eagle1", "eagle3"])
def test_a_target_whose_heads_do_not_divide_its_hidden_size_gets_a_head_with_the_same(
    documents: Documents, tmp_path: Path, recipe: Any
) -> None:
    config = tiny.llama_config(
        hidden_size=24, num_attention_heads=8, num_key_value_heads=2, head_dim=4
    )
    target = HFTarget(tiny.make_model(config, dtype=torch.float32))
    options = EagleTraining(recipe=recipe)
    made: Any = make_recipe(options, target, documents)
    made.save(made.make(), tmp_path)
    head: Any = load_head(tmp_path, target)
    own = head.config
    assert (own.num_attention_heads, own.num_key_value_heads, own.head_dim) == (8, 2, 4)
    other = EagleTraining(recipe=recipe, heads=2)
    made = make_recipe(other, target, documents)
    assert made.make().config.num_attention_heads == 2


def test_a_head_of_qwen3s_layers_has_norms_of_queries_and_keys_in_every_layer(
    decoding: Engine, documents: Documents, tmp_path: Path
) -> None:
    options = EagleTraining(recipe="eagle3", qk_norm=True, layers=2)
    made: Any = make_recipe(options, decoding.target, documents)
    made.save(made.make(), tmp_path)
    loaded = load_head(tmp_path, decoding.target)
    names = {f"layers.{i}.self_attn.{name}_norm.weight" for i in (0, 1) for name in "qk"}
    assert names <= tensors_of(loaded).keys()


Change = Callable[[Written], Any]
UNSAVABLE: dict[str, Change] = {
    "no final norm": lambda written: (
        written.fields["eagle_config"].update(use_last_layernorm=False),
        written.weights.pop("norm.weight"),
    ),
    "no fc": lambda written: (
        written.fields.update(eagle_config={"use_aux_hidden_state": False}),
        written.weights.pop("fc.weight"),
    ),
    "a bias of fc": lambda written: written.weights.update({"fc.bias": torch.zeros(32)}),
}


@pytest.mark.parametrize("change", UNSAVABLE)
def test_a_head_that_no_layout_can_express_is_no_start(
    decoding: Engine, documents: Documents, tmp_path: Path, change: str
) -> None:
    head = head_for(decoding.target.model, aux_layers=(1, 2, 3))
    written = in_layout("modelopt", head)
    UNSAVABLE[change](written)
    load_head(written.save(tmp_path), decoding.target)
    options = EagleTraining(recipe="eagle3", start=str(tmp_path))
    with pytest.raises(SpecdecError, match="could not be saved: the layout official cannot say"):
        make_recipe(options, decoding.target, documents).make()


def test_a_head_of_the_other_family_is_no_start(
    decoding: Engine, documents: Documents, tmp_path: Path
) -> None:
    for recipe, other in (("unrolled", "eagle3"), ("eagle3", "unrolled")):
        folder = tmp_path / recipe
        own: Any = make_recipe(EagleTraining(recipe=recipe), decoding.target, documents)
        own.save(own.make(), folder)
        with pytest.raises(SpecdecError, match="go on from it with"):
            options = EagleTraining(recipe=other, start=str(folder))
            make_recipe(options, decoding.target, documents).make()
