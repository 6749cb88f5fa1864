"""Inflated models: the outputs of the small model at the sizes of the large one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from examples import examples
from specdec import Engine
from specdec.bench.inflate import LABEL, inflate, inflate_head, inflated_config
from specdec.bench.presets import PRESETS, Shape
from specdec.errors import CheckpointError, OptionError
from specdec.models.hf_target import HFTarget
from specdec.plugin.embedded_model import EMBEDDED
from specdec_plugins.eagle.checkpoint import load_head

SMALL = Shape.of(tiny.SHAPE)
# Every size grows: groups from 2 to 4 query heads, and the vocabulary.
LARGER = Shape(80, 96, 3, 16, 4, 16, 75)
# Of the embedded model: twice the channels, more heads in larger groups, a layer, more tokens.
EMBEDDED_LARGER = Shape(512, 1000, 9, 16, 4, 128, 5000)


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest difference over the old tokens, in standard deviations of the reference."""
    ours = ours[..., : reference.shape[-1]]
    return float((ours - reference).abs().max() / reference.std())


@torch.inference_mode()
def logits(model: Any, rows: int = 2, length: int = 40) -> torch.Tensor:
    """On random text of tokens that every model here has."""
    text = torch.randint(0, tiny.VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))
    return model(text).logits


@torch.inference_mode()
def draft_logits(model: Any, folder: Path) -> torch.Tensor:
    """What the head in ``folder`` drafts with: one forward on the features, one on its outputs."""
    target = HFTarget(model)
    head = load_head(folder, target)
    text = torch.randint(0, tiny.VOCAB, (2, 24), generator=torch.Generator().manual_seed(1))
    n = text.shape[1] - 1
    embed = head.embed_tokens or target.embed
    positions, mask = torch.arange(n).expand(2, -1), torch.ones(n, n, dtype=torch.bool).tril()
    features = target.read(text).last[:, :-1]
    first = head(embed(text[:, 1:]), features, positions, mask[None, None])
    second = head(embed(text[:, 1:]), first, positions, mask[None, None])
    return target.logits(torch.cat([first, second], dim=1))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], Shape]:
    """The config of a tiny model and a shape that holds it."""
    group, kv, dim = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.sampled_from([4, 8]))
    heads = group * kv
    small = {
        "hidden_size": -(-32 // heads) * heads + heads * draw(st.integers(0, 2)),
        "intermediate_size": draw(st.integers(5, 40)),
        "num_hidden_layers": draw(st.integers(1, 2)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": dim,
        "tie_word_embeddings": draw(st.booleans()),
        "attention_bias": draw(st.booleans()),
        "mlp_bias": draw(st.booleans()),
        # Large ones too: at 1e-6 a wrong eps would not be seen.
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-2, 0.5])),
    }
    large_group = draw(st.integers(1, 6))
    large_kv = kv * -(-group // large_group) + draw(st.integers(0, 2))
    large_heads = large_group * large_kv
    hidden = small["hidden_size"] + draw(st.integers(0, 30))
    hidden += -hidden % large_heads
    more_tokens = draw(st.integers(0, 20)) if hidden > small["hidden_size"] else 0
    large = Shape(
        hidden_size=hidden,
        intermediate_size=small["intermediate_size"] + draw(st.integers(0, 20)),
        num_hidden_layers=small["num_hidden_layers"] + draw(st.integers(0, 2)),
        num_attention_heads=large_heads,
        num_key_value_heads=large_kv,
        head_dim=dim * draw(st.integers(1, 3)),
        vocab_size=tiny.VOCAB + more_tokens or None,
    )
    return small, large


def shake(model: Any) -> Any:
    """Norm weights and biases are 1 and 0 when a model is made; here they are random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


@given(pairs())
def test_logits_are_those_of_the_small_model(pair: tuple[dict[str, Any], Shape]) -> None:
    small, shape = pair
    model = shake(tiny.make_model(tiny.llama_config(**small)))
    inflated = inflate(model, shape)
    assert Shape.of(inflated.config.to_dict()) == shape
    found = logits(inflated)
    # transformers' norms are float32 in a float64 model too: with random weights 2e-5 was seen.
    assert relative(found, logits(model)) < 1e-4
    assert (found[..., tiny.VOCAB :] < -100).all()


@examples(4, many=30)
@given(pairs(), st.booleans(), st.booleans(), st.sampled_from([1e-6, 1e-2]))
def test_draft_logits_are_those_of_the_small_head(
    tmp_path_factory: pytest.TempPathFactory,
    pair: tuple[dict[str, Any], Shape],
    fc_bias: bool,
    own_embedding: bool,
    eps: float,
) -> None:
    small, shape = pair
    folder = tmp_path_factory.mktemp("inflated")
    model = shake(tiny.make_model(tiny.llama_config(**small)))
    sizes = {name: value for name, value in small.items() if name in vars(shape)}
    sizes |= {"num_hidden_layers": 2, "rms_norm_eps": eps, "attention_bias": True}
    head = tiny.make_head(
        folder / "head", model, fc_bias=fc_bias, own_embedding=own_embedding, **sizes
    )
    inflate_head(head, model.config, shape, folder / "large")
    found = draft_logits(inflate(model, shape), folder / "large")
    assert relative(found, draft_logits(model, head)) < 1e-5
    assert (found[..., tiny.VOCAB :] < -100).all()


@dataclasses.dataclass
class Inflated:
    """A model and its head in float32, small and large."""

    model: Any
    head: Path
    large_model: Any
    large_head: Path


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Inflated:
    folder, source = tmp_path_factory.mktemp("embedded"), Path(EMBEDDED.drafters["eagle"])
    model = hf.LlamaForCausalLM.from_pretrained(EMBEDDED.model, dtype=torch.float32).eval()
    weights = {name: w.float() for name, w in load_file(source / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    shutil.copy(source / "config.json", folder)
    large = inflate_head(folder, model.config, EMBEDDED_LARGER, folder / "large")
    return Inflated(model, folder, inflate(model, EMBEDDED_LARGER), large)


def test_the_embedded_model_and_its_head_keep_their_logits(embedded: Inflated) -> None:
    assert relative(logits(embedded.large_model), logits(embedded.model)) < 1e-5
    drafted = draft_logits(embedded.model, embedded.head)
    assert relative(draft_logits(embedded.large_model, embedded.large_head), drafted) < 1e-5


def test_the_embedded_model_writes_and_accepts_the_same(embedded: Inflated) -> None:
    settings = {"max_new_tokens": 24, "temperature": 0.0}
    prompts = [[1, 300, 17, 42, 999], [1, 5]]
    small = Engine(embedded.model, strategy="eagle2", drafter=str(embedded.head))
    large = Engine(embedded.large_model, strategy="eagle2", drafter=str(embedded.large_head))
    for ours, theirs in zip(
        large.generate(prompts, **settings), small.generate(prompts, **settings), strict=True
    ):
        assert ours.token_ids == theirs.token_ids
        assert ours.stats.tau == theirs.stats.tau


def test_an_added_token_has_no_probability_and_may_be_read(model: Any) -> None:
    inflated = inflate(model, LARGER, dtype=torch.float32)
    text = torch.arange(LARGER.vocab_size)[None]
    distribution = inflated(text).logits.softmax(dim=-1)
    assert (distribution[..., tiny.VOCAB :] == 0).all()
    torch.testing.assert_close(distribution.sum(-1), torch.ones_like(distribution[..., 0]))


def test_what_adds_nothing_is_still_computed(model: Any) -> None:
    """New heads, neurons and layers have values of order one, so that no kernel meets zeros."""
    inflated = inflate(model, LARGER, dtype=torch.float32)
    seen: dict[str, torch.Tensor] = {}
    for name, module in inflated.named_modules():
        if name.endswith(("o_proj", "down_proj")):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.__setitem__(name, inputs[0])
            )
    logits(inflated)
    for values in seen.values():
        assert ((values != 0).float().mean((0, 1)) > 0.9).all()
        assert 0.01 < values.std() < 100


def test_weights_have_the_dtype_asked_for_and_nothing_is_left_unmade(model: Any) -> None:
    inflated = inflate(model, LARGER, dtype=torch.bfloat16)
    assert {weight.dtype for weight in inflated.parameters()} == {torch.bfloat16}
    assert {weight.device.type for weight in inflated.parameters()} == {"cpu"}
    assert inflated.config.dtype == torch.bfloat16
    assert torch.isfinite(logits(inflated)).all()


def test_label_and_logits_survive_saving(model: Any, tmp_path: Path) -> None:
    inflated = inflate(model, LARGER, dtype=torch.float32)
    inflated.save_pretrained(tmp_path)
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert "hidden_size 32" in getattr(loaded.config, LABEL)
    torch.testing.assert_close(logits(loaded), logits(inflated), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("240m", 230e6, 260e6), ("1b", 1e9, 1.6e9), ("8b", 7.5e9, 8.5e9)]
)
def test_presets_hold_the_embedded_model(name: str, low: float, high: float) -> None:
    config = hf.LlamaConfig.from_pretrained(EMBEDDED.model)
    with torch.device("meta"):
        inflated = hf.LlamaForCausalLM(inflated_config(config, PRESETS[name]))
    assert low < inflated.num_parameters() < high


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 16},
        {"num_hidden_layers": 1},
        {"vocab_size": 10},
        {"head_dim": 12},
        {"num_key_value_heads": 3},
        {"num_attention_heads": 1, "num_key_value_heads": 1},
        {"hidden_size": SMALL.hidden_size, "vocab_size": SMALL.vocab_size + 1},
    ],
)
def test_a_shape_that_cannot_hold_the_model_is_refused(model: Any, changes: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=next(iter(changes))):
        inflate(model, dataclasses.replace(SMALL, **changes))


def test_wider_heads_need_default_rope() -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    model = tiny.make_model(tiny.llama_config(rope_parameters=rope), dtype=torch.float32)
    with pytest.raises(OptionError, match="head_dim must stay 8"):
        inflate(model, LARGER)
    shape = dataclasses.replace(LARGER, head_dim=8)
    assert relative(logits(inflate(model, shape)), logits(model)) < 1e-5


def test_only_llama_models_are_inflated() -> None:
    with pytest.raises(OptionError, match="GPT2"):
        inflate(hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=1, n_embd=8, n_head=2)), LARGER)


def test_a_head_of_another_model_is_refused(head: Path, tmp_path: Path) -> None:
    other = tiny.llama_config(hidden_size=64)
    with pytest.raises(CheckpointError, match="hidden_size 32"):
        inflate_head(head, other, LARGER, tmp_path)
