"""Quantised targets: speculation writes what the quantised model itself writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPTS
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

import specdec.hf
from specdec import Engine
from specdec.errors import OptionError, UnsupportedModelError
from specdec.kv_cache.kv_cache import KVCache

WARM: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3, "eos_token_id": []}
# Layers of the least sizes that the libraries pack.
SIZES = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}


def base(dtype: torch.dtype = torch.float32) -> Any:
    return tiny.make_model(tiny.llama_config(**SIZES), dtype=dtype)


def by_torchao(kind: str) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        quantization = pytest.importorskip("torchao.quantization")
        model = base().eval()
        with torch.no_grad():
            quantization.quantize_(model, getattr(quantization, kind)())
        return model

    return make


def loaded_by_torchao(folder: Path) -> Any:
    """A model that is quantised as it is loaded."""
    quantization = pytest.importorskip("torchao.quantization")
    tiny.save_model(base(), folder)
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=TorchAoConfig(quantization.Int8WeightOnlyConfig()),
    )


def by_bitsandbytes(dtype: torch.dtype, **how: Any) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        pytest.importorskip("bitsandbytes")
        pytest.importorskip("accelerate")
        tiny.save_model(base(), folder)
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, quantization_config=BitsAndBytesConfig(**how)
        )

    return make


def with_adapter(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def adapted(folder: Path) -> Any:
        peft = pytest.importorskip("peft")
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
        return peft.get_peft_model(make(folder), config).eval()

    return adapted


FOUR_BITS = by_bitsandbytes(torch.float32, load_in_4bit=True)
# In float64, so that no input is rounded to another of 255 steps for a difference in its last bit.
EIGHT_BITS = by_bitsandbytes(torch.float64, load_in_8bit=True, llm_int8_threshold=0.0)
ROUNDS_INPUTS = by_torchao("Int8DynamicActivationInt8WeightConfig")
KINDS = {
    "torchao, 8-bit weights": by_torchao("Int8WeightOnlyConfig"),
    "torchao, as it is loaded": loaded_by_torchao,
    "bitsandbytes, 4-bit": FOUR_BITS,
    "bitsandbytes, 8-bit": EIGHT_BITS,
    "LoRA on 4 bits": with_adapter(FOUR_BITS),
    "LoRA on 8 bits": with_adapter(EIGHT_BITS),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_target_writes_its_own_text(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind](tmp_path)
    draft = tiny.save_model(tiny.noisy_copy(base()), tmp_path / "draft")
    plain = Engine(model, strategy="plain")
    prompt = torch.tensor(PROMPTS[:1])
    with torch.no_grad():
        off = model(input_ids=prompt).logits - base()(input_ids=prompt).logits
    assert off.abs().max() > 1e-3, "nothing is rounded here"
    tau = []
    for temperature in (0.0, 1.0):
        settings = {**WARM, "temperature": temperature}
        wanted = tiny.tokens(plain, PROMPTS, **settings)
        if temperature == 0:
            assert wanted == [tiny.greedy_reference(model, prompt, 12) for prompt in PROMPTS]
            inside = specdec.hf.decoder("draft_model", str(draft))
            cold = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
            found = model.generate(input_ids=prompt, custom_generate=inside, **cold)
            assert found.tolist() == [PROMPTS[0] + wanted[0]]
        for name in ("eagle2+draft_model", "auto+draft_model"):
            engine = tiny.engine(plain, name, draft)
            results = engine.generate(PROMPTS, **settings)
            assert [result.token_ids for result in results] == wanted, name
            tau.append(tiny.mean_tau(results))
    assert max(tau) > 1.2, "otherwise nothing is speculated"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_where_inputs_are_rounded_texts_part_at_near_ties_alone(tmp_path: Path) -> None:
    """A difference in the last bit of a sum may round an input to the next of 255 steps."""
    model = ROUNDS_INPUTS(tmp_path)
    draft = tiny.save_model(tiny.noisy_copy(base()), tmp_path / "draft")
    plain = Engine(model, strategy="plain")
    engine = tiny.engine(plain, "eagle2+draft_model", draft)
    settings = {**WARM, "temperature": 0}
    found, wanted = (tiny.tokens(each, PROMPTS, **settings) for each in (engine, plain))
    for prompt, ours, theirs in zip(PROMPTS, found, wanted, strict=True):
        pairs = enumerate(zip(ours, theirs, strict=True))
        parted = next((place for place, (one, other) in pairs if one != other), None)
        if parted is not None:
            with torch.no_grad():
                text = torch.tensor([[*prompt, *theirs[:parted]]])
                logits = model(input_ids=text).logits[0, -1]
            gap = float(logits[ours[parted]] - logits[theirs[parted]]) / float(logits.std())
            assert abs(gap) < 0.15


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "make",
    [EIGHT_BITS, KINDS["torchao, 8-bit weights"], loaded_by_torchao],
    ids=["bitsandbytes", "torchao", "torchao, as it is loaded"],
)
def test_a_quantised_target_is_not_converted(make: Callable[[Path], Any], tmp_path: Path) -> None:
    model = make(tmp_path)
    with pytest.raises(OptionError, match="a quantised model is taken as it is"):
        Engine(model, strategy="plain", dtype="bfloat16")


def test_a_model_whose_weights_are_packed_by_hand_is_not_converted() -> None:
    """Whatever library packs them, and in whichever module: the class of the weight says it."""

    class Packed(torch.Tensor):
        def dequantize(self) -> torch.Tensor:
            return self.as_subclass(torch.Tensor)

    model = base()
    Engine(model, strategy="plain", dtype="bfloat16")
    embedding = model.get_input_embeddings()
    embedding.weight = torch.nn.Parameter(embedding.weight.detach().as_subclass(Packed))
    with pytest.raises(OptionError, match="a quantised model is taken as it is"):
        Engine(model, strategy="plain", dtype="bfloat16")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_rounds_a_token_by_its_neighbours_is_refused(tmp_path: Path) -> None:
    model = by_bitsandbytes(torch.float32, load_in_8bit=True)(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"outliers.*llm_int8_threshold=0\.0"):
        Engine(model, strategy="plain")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("make", [ROUNDS_INPUTS, EIGHT_BITS], ids=["torchao", "bitsandbytes"])
def test_a_wrong_mask_is_seen_where_inputs_are_rounded(
    make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(tmp_path)
    visible = KVCache.visible

    def wrong(self: KVCache, tree_mask: torch.Tensor) -> torch.Tensor:
        seen = visible(self, tree_mask)
        seen[:, -1, 0] = False
        return seen

    monkeypatch.setattr(KVCache, "visible", wrong)
    with pytest.raises(UnsupportedModelError, match="differs from path-by-path"):
        Engine(model, strategy="plain")
