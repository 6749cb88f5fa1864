"""The EAGLE-3 network against plain tensor operations, flag by flag."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from specdec.models.hidden_states import HiddenStates
from specdec_plugins.eagle.checkpoint import tensors_of
from specdec_plugins.eagle.description import HeadDescription
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.layouts import recognise
from specdec_plugins.eagle.rope import rope_parameters

H, h, V, D, STATES, LENGTH = 20, 24, 40, 30, 3, 7
CASES: dict[str, dict[str, Any]] = {
    "as published": {},
    "residual after the norm": {"norm_before_residual": True},
    "normed output": {"norm_output": True},
    "one norm before fc": {"norm_before_fc": True},
    "a norm for each state": {"fc_norm": True},
    "no final norm": {"final_norm": False},
    "norms of queries and keys": {"qk_norm": True},
    "biases": {"biases": frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "fc", "lm_head"})},
    "biases of the mlp": {"biases": frozenset({"gate_proj", "up_proj", "down_proj"})},
    "five states": {"states": 5},
    "no fc": {"fc": False, "states": 1, "target_hidden_size": h},
    "three layers": {"num_hidden_layers": 3},
    "heads that are wider than the hidden size": {"head_dim": 16},
    "one key-value head": {"num_key_value_heads": 1},
    "a window": {"layer_types": ["sliding_attention"], "sliding_window": 3},
    "a window in one layer of two": {
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 2,
    },
    "a window and norms of queries": {
        "qk_norm": True,
        "layer_types": ["sliding_attention"],
        "sliding_window": 3,
    },
    "linear rope": {"rope": {"rope_type": "linear", "factor": 4.0}},
    "llama3 rope": {
        "rope": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    "yarn rope": {
        "rope": {
            "type": "yarn",
            "factor": 32.0,
            "original_max_position_embeddings": 16,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        }
    },
    "mrope of text": {"rope": {"type": "mrope", "mrope_section": [2, 1, 1]}},
}


def make(**changes: Any) -> Eagle3Head:
    rope = changes.pop("rope", {})
    sizes = {"hidden_size": h, "intermediate_size": 32, "num_attention_heads": 3}
    sizes |= {"num_key_value_heads": 3, "head_dim": 8, "num_hidden_layers": 1, "vocab_size": V}
    decoder_keys = (*sizes, "layer_types", "sliding_window")
    decoder = {**sizes, **{k: changes.pop(k) for k in decoder_keys if k in changes}}
    decoder |= {"rms_norm_eps": 1e-3, "hidden_act": "silu", "max_position_embeddings": 64}
    decoder["rope_parameters"] = rope_parameters({"rope_theta": 50.0, "rope_scaling": rope})
    states = changes.pop("states", STATES)
    description = HeadDescription(
        **{
            "family": "eagle3",
            "layout": "vllm",
            "decoder": decoder,
            "target_hidden_size": H,
            "draft_vocab_size": D,
            "states": states,
            **changes,
        }
    ).with_flags(aux_layers=range(states))
    torch.manual_seed(0)
    head = Eagle3Head(description.config(), description.wiring(9)).double().eval()
    with torch.no_grad():
        for name, weight in head.named_parameters():
            noise = 0.3 * torch.randn_like(weight)
            weight.copy_(1 + noise if "norm" in name else noise)
    return head


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * weight


def frequencies(size: int, rope: dict[str, Any]) -> tuple[Tensor, float]:
    """Inverse frequencies ``[size / 2]``, and what sine and cosine are multiplied by."""
    plain = 50.0 ** (-torch.arange(0, size, 2).double() / size)
    kind, factor = rope.get("rope_type") or rope.get("type"), rope.get("factor")
    if kind == "linear":
        return plain / factor, 1.0
    if kind == "llama3":
        length = rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = length * plain / (2 * math.pi)
        share = ((turns - low) / (high - low)).clamp(0, 1)
        return plain * (share + (1 - share) / factor), 1.0
    if kind == "yarn":
        length = rope["original_max_position_embeddings"]

        def dimension(turns: float) -> float:
            return size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(50.0))

        first = max(math.floor(dimension(rope["beta_fast"])), 0)
        last = min(math.ceil(dimension(rope["beta_slow"])), size - 1)
        ramp = (torch.arange(size // 2).double() - first) / (max(last - first, 0.001))
        ramp = ramp.clamp(0, 1)
        return plain / factor * ramp + plain * (1 - ramp), 0.1 * math.log(factor) + 1
    return plain, 1.0


def rotate(x: Tensor, positions: Tensor, rope: dict[str, Any]) -> Tensor:
    inverse, scale = frequencies(x.shape[-1], rope)
    angle = (positions[:, None].double() * inverse)[:, None]
    first, second = x.chunk(2, dim=-1)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Reference:
    """One sequence through a head, in plain tensor operations."""

    def __init__(self, head: Eagle3Head, rope: dict[str, Any]) -> None:
        self.w, self.head, self.rope = tensors_of(head), head, rope
        self.wiring, self.config = head.wiring, head.config

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def fuse(self, states: list[Tensor]) -> Tensor:
        if self.wiring.fc_norm:
            states = [rms(s, self.w[f"fc_norm.{i}.weight"]) for i, s in enumerate(states)]
        x = torch.cat(states, dim=-1)
        if self.wiring.norm_before_fc:
            x = rms(x, self.w["input_norm.weight"])
        return self.linear(x, "fc") if self.wiring.fc else x

    def attention(self, x: Tensor, positions: Tensor, layer: int) -> Tensor:
        name, size = f"layers.{layer}.self_attn.", self.config.head_dim
        heads, groups = self.config.num_attention_heads, self.config.num_key_value_heads
        q, k, v = (self.linear(x, f"{name}{p}_proj").view(len(x), -1, size) for p in "qkv")
        if f"{name}q_norm.weight" in self.w:
            q, k = rms(q, self.w[f"{name}q_norm.weight"]), rms(k, self.w[f"{name}k_norm.weight"])
        q, k = rotate(q, positions, self.rope), rotate(k, positions, self.rope)
        types = getattr(self.config, "layer_types", None)
        windowed = bool(types) and types[layer] == "sliding_attention"
        behind = positions[:, None] - positions
        hidden = (behind < 0) | (
            windowed & (behind >= (getattr(self.config, "sliding_window", None) or 1))
        )
        out = []
        for one in range(heads):
            own = one * groups // heads
            scores = (q[:, one] @ k[:, own].T / size**0.5).masked_fill(hidden, -math.inf)
            out.append(scores.softmax(-1) @ v[:, own])
        return self.linear(torch.cat(out, dim=-1), f"{name}o_proj")

    def outputs(self, embedded: Tensor, g: Tensor, positions: Tensor) -> Tensor:
        x = g
        for i in range(self.config.num_hidden_layers):
            name = f"layers.{i}."
            normed = rms(
                x, self.w[f"{name}{'hidden_norm' if i == 0 else 'input_layernorm'}.weight"]
            )
            read, residual = normed, x
            if i == 0:
                read = torch.cat(
                    [rms(embedded, self.w[f"{name}input_layernorm.weight"]), normed], -1
                )
                residual = normed if self.wiring.norm_before_residual else x
            x = residual + self.attention(read, positions, i)
            y = rms(x, self.w[f"{name}post_attention_layernorm.weight"])
            gate, up = (self.linear(y, f"{name}mlp.{p}_proj") for p in ("gate", "up"))
            x = x + self.linear(silu(gate) * up, f"{name}mlp.down_proj")
        return rms(x, self.w["norm.weight"]) if self.wiring.norm_output else x

    def logits(self, outputs: Tensor) -> Tensor:
        plain = self.wiring.norm_output or not self.wiring.final_norm
        return self.linear(outputs if plain else rms(outputs, self.w["norm.weight"]), "lm_head")


def masks(head: Eagle3Head, positions: Tensor) -> Any:
    behind = positions[:, None] - positions
    causal = (behind >= 0)[None, None]
    if not (types := getattr(head.config, "layer_types", None)):
        return causal
    window = causal & (behind < (getattr(head.config, "sliding_window", None) or LENGTH))
    both = {"full_attention": causal, "sliding_attention": window}
    return {kind: both[kind] for kind in set(types)}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_every_flag_computes_what_plain_tensor_operations_say(case: str) -> None:
    head = make(**CASES[case])
    reference = Reference(head, CASES[case].get("rope", {}))
    width = head.wiring.target_hidden_size
    states = [torch.randn(LENGTH, width).double() for _ in range(head.wiring.states)]
    embedded = torch.randn(LENGTH, h).double()
    positions = torch.arange(LENGTH)
    g = head.fuse(head.features(HiddenStates(states[0][None], tuple(s[None] for s in states))))
    torch.testing.assert_close(g[0], reference.fuse(states), atol=1e-5, rtol=1e-5)
    out = head(embedded[None], g, positions[None], masks(head, positions))
    wanted = reference.outputs(embedded, g[0], positions)
    torch.testing.assert_close(out[0], wanted, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(head.logits(out)[0], reference.logits(wanted), atol=1e-4, rtol=1e-4)


def test_the_cases_tell_flags_apart() -> None:
    """A flag that changed nothing would not have been tested."""
    embedded, state = torch.randn(1, LENGTH, h).double(), torch.randn(1, LENGTH, H).double()
    positions = torch.arange(LENGTH)

    def run(case: str) -> Tensor:
        head = make(**CASES[case])
        g = head.fuse(torch.cat([state] * head.wiring.states, dim=-1)[..., : _width(head)])
        return head.logits(head(embedded, g, positions[None], masks(head, positions)))

    with torch.no_grad():
        plain = run("as published")
        same = {"normed output", "mrope of text", "no fc"}  # a fed back state is not read here
        for case in CASES.keys() - {"as published", *same}:
            assert not torch.allclose(run(case), plain, atol=1e-3), case


def _width(head: Eagle3Head) -> int:
    return head.wiring.states * head.wiring.target_hidden_size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rope_frequencies_keep_their_precision(dtype: torch.dtype) -> None:
    true = make().decoder.rotary_emb.inv_freq
    cast = make().to(dtype).decoder.rotary_emb.inv_freq
    assert torch.equal(cast, true) and cast.dtype == torch.float32


def test_layouts_are_told_apart() -> None:
    assert recognise({}, ["fc.weight"]) == "official"
    assert recognise({}, ["layers.0.hidden_norm.weight"]) == "vllm"
