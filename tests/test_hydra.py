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
    drafts: Any = engine.parts.drafter.start(tiny.make_state([IDS]), Features(hidden, [0]))  # type: ignore[union-attr]
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
        found.append(drafts.propose(before).logits[0])
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


@pytest.mark.parametrize("layout", HYDRA)
def test_every_missing_surplus_misshapen_or_nan_tensor_is_refused_by_name(
    plain: Engine, tmp_path: Path, layout: str
) -> None:
    fields, whole, name = tiny_heads.make(layout)
    if layout != "hydra":  # every block; in the others those of one head, and the prefix layer
        keys = [key for key in whole if "embed_" not in key and ".1." in f".{key}"]
    else:
        keys = [key for key in whole if "embed_" not in key]

    def refused(change: str, tensors: dict[str, Tensor], key: str) -> None:
        folder = tiny_heads.write((fields, tensors, name), tmp_path / change)
        with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
            HEADS.load(folder, plain.target)

    for i, key in enumerate(keys):
        rest = {each: x for each, x in whole.items() if each != key}
        lost = whole[key].clone()
        lost.view(-1)[0] = float("nan")
        refused(f"missing{i}", rest, key)
        refused(f"shape{i}", {**rest, key: whole[key][..., :-1].contiguous()}, key)
        refused(f"nan{i}", {**rest, key: lost}, key)
    refused("surplus", {**whole, "odd.weight": torch.ones(3)}, "odd.weight")


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


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize(("projection", "drafted"), [("own", None), ("target", 20)])
def test_saved_heads_are_loaded_back_unchanged(
    plain: Engine, tmp_path: Path, projection: Any, drafted: int | None, prefix: bool
) -> None:
    made = random_heads(plain.target.model, 2, 2, projection, drafted, prefix=prefix)
    HEADS.save(made, tmp_path)
    loaded = HEADS.load(tmp_path, plain.target)
    assert loaded.sizes == made.sizes
    assert loaded.state_dict().keys() == made.state_dict().keys()
    for name, each in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], each), name


@pytest.mark.parametrize("policy", ["static_tree", "eagle2", "auto"])
@pytest.mark.parametrize(
    ("projection", "prefix"), [("own", False), ("own", True), ("target", True)]
)
def test_text_is_that_of_plain_decoding_and_drafts_are_accepted(
    plain: Engine, policy: str, projection: Any, prefix: bool
) -> None:
    heads = random_heads(plain.target.model, projection=projection, prefix=prefix)
    options = {"policy": tiny.AUTO["policy"]} if policy == "auto" else {}
    engine = plain.with_strategy("hydra", drafter=heads, policy=policy, options=options)
    taus = []
    for temperature in (0.0, 1.0):
        settings = {"max_new_tokens": 20, "temperature": temperature, "seed": 3}
        own, wanted = (each.generate(tiny.PROMPTS, **settings) for each in (engine, plain))
        assert [each.token_ids for each in own] == [each.token_ids for each in wanted]
        taus += [each.stats.tau for each in own]
    assert sum(taus) / len(taus) > 1.3


@pytest.mark.parametrize("layout", HYDRA)
def test_inspection_says_what_the_heads_are(plain: Engine, tmp_path: Path, layout: str) -> None:

    folder = tiny_heads.write(tiny_heads.make(layout), tmp_path)
    assert HEADS.recognises(folder)
    said = HEADS.describe(folder, plain.target, None)
    assert said["heads"] == tiny_heads.HEADS and said["tensors"] == "complete" and said["fits"]
    assert (said["kind"], said["layout"]) == (
        "Hydra heads",
        "hydra++" if layout == "hydra++" else "hydra",
    )
    alone = HEADS.describe(folder, None, None)["tensors"]
    assert alone.startswith("not compared" if layout == "hydra++" else "complete")
