"""Test support of the drafters ``eagle`` and ``eagle3``."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel, Qwen3Config

from specdec.models.hf_target import HFTarget
from specdec.testing.support import DrafterSupport
from specdec.testing.table_model import OTHERS, TableForCausalLM
from specdec_plugins.eagle.eagle3_head import Eagle3Head, Eagle3Wiring
from specdec_plugins.eagle.saving import save_head


def eagle_head(model: PreTrainedModel, folder: Path) -> str:
    """Save a random EAGLE-1/2 head that fits the target, in the published format."""
    from safetensors.torch import save_file

    vocab, h = model.get_output_embeddings().weight.shape
    tables = isinstance(model, TableForCausalLM)
    generator, wide = torch.Generator().manual_seed(0), 2 * h
    shapes = {"fc": (h, 2 * h)}
    shapes |= {f"layers.0.self_attn.{name}_proj": (h, h) for name in "qkvo"}
    shapes |= {"layers.0.mlp.gate_proj": (wide, h), "layers.0.mlp.up_proj": (wide, h)}
    shapes |= {"layers.0.mlp.down_proj": (h, wide)}
    scale = 0.5 if tables else 0.05
    weights: dict[str, Tensor] = {
        f"{name}.weight": scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    if tables:
        # Features hold log-weights of -1e4: read faintly, they cannot drown the embedding.
        weights["fc.weight"][:, h:] *= 0.1
    else:
        weights["fc.weight"] = next_feature(model)
    weights["fc.bias"] = torch.zeros(h, dtype=torch.float64)
    if tables:
        # Tokens that the table never writes come late in any draft, whatever else was read.
        for name in ("fc", "layers.0.self_attn.o_proj", "layers.0.mlp.down_proj"):
            weights[f"{name}.weight"][OTHERS] = 0.0
        for name in "qkv":
            weights[f"layers.0.self_attn.{name}_proj.weight"][:, OTHERS] = 0.0
        weights["fc.weight"][:, [OTHERS, h + OTHERS]] = 0.0
        weights["fc.bias"][OTHERS] = -20.0
    weights["layers.0.post_attention_layernorm.weight"] = torch.ones(h, dtype=torch.float64)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fields: dict[str, Any] = {
        "hidden_size": h,
        "intermediate_size": wide,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": h // 2,
        "vocab_size": vocab,
        "bias": True,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    return str(folder)


@torch.no_grad()
def next_feature(model: PreTrainedModel, seed: int = 0) -> Tensor:
    """The linear map ``[H, 2H]`` from (embedding, feature) to the next feature, by least squares.

    As the ``fc`` of an EAGLE head it is right about half of the time.
    """
    generator = torch.Generator().manual_seed(seed)
    vocab = model.get_output_embeddings().weight.shape[0]
    length = min(24, model.config.max_position_embeddings)
    text = torch.randint(0, vocab, (48, length), generator=generator)
    features = model.base_model(input_ids=text).last_hidden_state.double()
    embedded = model.get_input_embeddings()(text).double()
    pairs = torch.cat([embedded[:, 1:], features[:, :-1]], dim=-1).flatten(0, 1)
    solution: Tensor = torch.linalg.lstsq(pairs, features[:, 1:].flatten(0, 1)).solution
    return solution.T.contiguous()


def eagle3_head(model: PreTrainedModel, folder: Path, **changes: Any) -> str:
    """Save an EAGLE-3 head that fits the target, with most of its tokens as draft vocabulary.

    Args:
        changes: of its :class:`Eagle3Wiring`; ``num_hidden_layers`` and ``qk_norm`` of its decoder.
    """
    head = random_eagle3_head(model, **changes)
    save_head(head, folder, "speculators")
    return str(folder)


@torch.no_grad()
def random_eagle3_head(model: PreTrainedModel, **changes: Any) -> Eagle3Head:
    """An EAGLE-3 head in float64; of a target that is no table it is often right.

    It reads the embeddings, the states between and the last one. Its ``fc`` keeps the last state,
    every token attends mostly to itself, and the values are the best linear guess of what the next
    state adds; the rest is small and random.
    """
    vocab, h = model.get_output_embeddings().weight.shape
    layers = model.config.get_text_config().num_hidden_layers
    chosen = (0, layers // 2, layers) if layers > 1 else (0, layers)
    kept = torch.arange(vocab)
    if vocab > 3:
        kept = kept[kept % 4 != 3]
    deep, qk_norm = changes.pop("num_hidden_layers", 1), changes.pop("qk_norm", False)
    window = changes.pop("sliding_window", None)
    tables = isinstance(model, TableForCausalLM)
    wiring = Eagle3Wiring(
        **{"aux_layers": chosen, "target_hidden_size": h, "draft_vocab_size": len(kept), **changes}
    )
    shape = {"hidden_size": h, "intermediate_size": 2 * h, "vocab_size": vocab}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": h // 2}
    kind = Qwen3Config if qk_norm else LlamaConfig
    config = kind(**shape, num_hidden_layers=deep)
    if window:
        config.layer_types, config.sliding_window = ["sliding_attention"] * deep, window
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        head = Eagle3Head(config, wiring).double().eval()
    for name, weight in head.named_parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        scale = (0.5 if tables else 0.05) if weight.dim() > 1 else 0.1
        weight.copy_(scale * noise + ("norm" in name))
    head.vocabulary = kept if wiring.draft_vocab_size == len(kept) else torch.arange(vocab)
    rows = model.get_output_embeddings().weight.double()[head.vocabulary]
    head.lm_head.weight.copy_(3 * rows if tables else rows)
    if tables:
        _mute_others(head)
    else:
        _guess_next_state(head, model, generator)
    if head.embed_tokens is not None:
        head.embed_tokens.weight.copy_(model.get_input_embeddings().weight)
    return head


def _mute_others(head: Eagle3Head) -> None:
    """Tokens that a table never writes come late in any draft: each embedding has one channel."""
    layers: Any = head.decoder.layers
    h = head.config.hidden_size
    if head.fusion.fc is None:
        return
    fc = head.fusion.fc.weight
    fc[:, h:] *= 0.1  # log-weights of -1e4
    fc[:, [OTHERS, h + OTHERS]] = 0.0
    fc[OTHERS] = 0.0
    fc[OTHERS, :h] = -20.0
    for layer in layers:
        layer.self_attn.o_proj.weight[OTHERS] = 0.0
        layer.mlp.down_proj.weight[OTHERS] = 0.0
    layers[0].hidden_norm.weight[OTHERS] = 0.0


def _guess_next_state(head: Eagle3Head, model: PreTrainedModel, generator: torch.Generator) -> None:
    first: Any = head.decoder.layers[0]
    h = head.config.hidden_size
    own = HFTarget(copy.deepcopy(model), aux_layers=head.aux_layers or ())
    vocab = head.config.vocab_size
    length = min(24, model.config.get_text_config().max_position_embeddings)
    text = torch.randint(0, vocab, (48, length), generator=generator)
    hidden = own.read(text)
    last = (hidden.aux[-1] if hidden.aux else hidden.last).double()
    embedded = own.embed(text).double()
    normed = [
        x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        for x in (embedded[:, 1:], last[:, :-1])
    ]
    change = (last[:, 1:] - last[:, :-1]).flatten(0, 1)
    guess = torch.linalg.lstsq(torch.cat(normed, dim=-1).flatten(0, 1), change).solution.T
    if (fc := head.fusion.fc) is not None:
        fc.weight[:, -h:] = torch.eye(h)
    norms: list[Any] = [first.input_layernorm, first.hidden_norm, head.decoder.norm]
    for norm in norms:
        norm.weight.fill_(1.0)
    alike = torch.randn(h, 2 * h, generator=generator, dtype=torch.float64)
    for name in ("q_proj", "k_proj"):  # a token scores highest with itself
        getattr(first.self_attn, name).weight.copy_(alike / 4)
    first.self_attn.v_proj.weight.copy_(guess)
    first.self_attn.o_proj.weight.copy_(torch.eye(h))


SUPPORT = [
    DrafterSupport("eagle", checkpoint=eagle_head),
    DrafterSupport("eagle3", checkpoint=eagle3_head),
]
