"""Hydra heads: checkpoints of both published layouts, and what is drafted from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pages import ROOT
from torch import Tensor
from torch.nn.functional import linear, silu
from transformers import LlamaConfig, LlamaModel

from specdec import Engine, SpecdecError
from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Features
from specdec.errors import CheckpointError
from specdec_plugins.hydra.checkpoint import HEADS
from specdec_plugins.hydra.testing import random_heads

sys.path.append(str(ROOT / "scripts"))
import make_tiny_heads as tiny_heads

HYDRA = [layout for layout in tiny_heads.LAYOUTS if layout.startswith("hydra")]
IDS = [5, 9, 1, 7, 3, 22]  # the last is the root
# Draft tokens by level, and for each the node of the level before that it hangs from.
LEVELS = [([22], [0]), ([4, 8], [0, 0]), ([6, 11, 40], [1, 0, 1])]
PATHS = [[[22]], [[22, 4], [22, 8]], [[22, 8, 6], [22, 4, 11], [22, 8, 40]]]


def prefixed(tensors: dict[str, Tensor], config: Any, hidden: Tensor) -> Tensor:
    """The authors' prefix layer: a whole Llama of one layer, given hidden states."""
    sizes = {"num_hidden_layers": 1, "attn_implementation": "eager"}
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    sizes |= {name: getattr(config, name) for name in (*names, "vocab_size", "rms_norm_eps")}
    llama = LlamaModel(LlamaConfig(**sizes)).double().eval()
    stem = "prefix_embeding_layer."
    own = {n.removeprefix(stem): x.double() for n, x in tensors.items() if n.startswith(stem)}
    llama.load_state_dict(own)
    return llama(inputs_embeds=hidden).last_hidden_state


def by_hand(checkpoint: Any, target: Any, head: int, path: list[int]) -> Tensor:
    """Logits ``[V]`` of one head below a path, from the tensors as the layout names them."""
    fields, tensors, _ = checkpoint
    plus = fields["hydra_head_arch"] == "prefix-mlp"
    own = {name: each.double() for name, each in tensors.items()}
    hidden = target.read(torch.tensor([IDS[:-1]])).last
    if plus:
        hidden = prefixed(tensors, target.config, hidden)
    x = torch.cat([hidden[0, -1], *target.embed(torch.tensor(path))])
    for layer in range(fields["hydra_num_layers"]):
        block = f"hydra_mlp.{head}.{2 * layer + 1 if plus else layer}."
        weight = {part: own[f"{block}linear.{part}"] for part in ("weight", "bias")}
        kept = x
        if layer == 0:
            names = (f"{block}res_connection.{part}" for part in ("weight", "bias"))
            kept = linear(x, *(own[name] for name in names))
        x = kept + silu(linear(x, **weight))
    stem = f"hydra_lm_head.{head}.{'1.' if plus else ''}"
    return linear(x, own[f"{stem}weight"], own[f"{stem}bias"])


def proposals(engine: Engine, target: Any) -> list[Tensor]:
    """Draft logits ``[n, C]`` at the nodes of ``LEVELS``."""
    hidden = target.read(torch.tensor([IDS[:-1]]))
    proposer: Any = engine.parts.drafter.start(tiny.make_state([IDS]), Features(hidden, [0]))  # type: ignore[union-attr]
    found, before = [], None
    for depth, (tokens, parents) in enumerate(LEVELS):
        nodes = torch.arange(len(tokens))[None]
        before = Frontier(
            depth,
            torch.tensor([tokens]),
            nodes,
            torch.tensor([parents]),
            nodes.double(),
            torch.tensor([[len(IDS) - 1]]),
            before,
        )
        found.append(proposer.propose(before).logits[0])
    return found


@pytest.mark.parametrize("layout", HYDRA)
@torch.no_grad()
def test_a_published_layout_drafts_what_its_tensors_say(
    plain: Engine, tmp_path: Path, layout: str
) -> None:
    checkpoint = tiny_heads.make(layout)
    folder = tiny_heads.write(checkpoint, tmp_path)
    engine = plain.with_strategy("hydra", drafter=str(folder))
    for head, (own, paths) in enumerate(zip(proposals(engine, plain.target), PATHS, strict=True)):
        for logits, path in zip(own, paths, strict=True):
            wanted = by_hand(checkpoint, plain.target, head, path)
            torch.testing.assert_close(logits, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"grounded_heads": False}, "are Medusa's"),
        ({"hydra_head_arch": "eagle-attn"}, "specdec reads 'mlp'"),
        ({"hidden_state_offset": 1}, "the last hidden state alone"),
        ({"hydra_num_heads": 0}, "hydra_num_heads=0"),
        ({"vocab_size": 60, "hidden_size": 2**40}, "hidden_size=1099511627776"),
    ],
)
def test_what_is_not_supported_is_refused(
    plain: Engine, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    fields, tensors, name = tiny_heads.make("hydra")
    folder = tiny_heads.write(({**fields, **change}, tensors, name), tmp_path)
    with pytest.raises(CheckpointError, match=says):
        HEADS.load(folder, plain.target)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_act": "nonsense"}, "prefix.hidden_act='nonsense'"),
        ({"rope_parameters": {"rope_type": "nonsense"}}, "rope_type must be one of default"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "prefix.rope_parameters=.*factor"),
        ({"rope_parameters": {"rope_theta": "x"}}, "prefix.rope_parameters="),
        ({"rope_parameters": {"rope_theta": 0}}, "8 finite frequencies"),
        ({"num_attention_heads": 3}, "prefix.num_attention_heads=3: .* 32 needs a divisor"),
        ({"num_key_value_heads": 3}, "prefix.num_key_value_heads=3: num_attention_heads is"),
        ({"head_dim": 2**40}, "prefix.head_dim=1099511627776"),
        ({"rms_norm_eps": float("inf")}, "prefix.rms_norm_eps=inf"),
        ({"odd": 1}, "prefix.odd=1"),
        ({"head_dim": None}, "prefix.head_dim=None"),
        ({"hidden_size": 64}, "prefix.hidden_size=64, and the heads read 32"),
    ],
)
def test_a_prefix_layer_that_cannot_be_is_refused_by_its_field(
    plain: Engine, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    HEADS.save(random_heads(plain.target.model, prefix=True), tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["prefix"] |= change
    (tmp_path / "config.json").write_text(json.dumps(fields))
    for read in (HEADS.read, lambda folder: HEADS.load(folder, plain.target)):
        with pytest.raises(CheckpointError, match=f"the Hydra heads in .* has .*{says}"):
            read(tmp_path)


def test_without_heads_the_drafter_says_what_it_needs(plain: Engine) -> None:
    with pytest.raises(SpecdecError, match="the drafter 'hydra' needs Hydra heads"):
        plain.with_strategy("hydra")
