"""Medusa heads: checkpoints of every published layout, and what is drafted from them."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pages import ROOT
from torch import Tensor
from torch.nn.functional import silu

from specdec import Engine, SpecdecError
from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Features
from specdec.errors import CheckpointError
from specdec_plugins.medusa.checkpoint import HEADS
from specdec_plugins.medusa.testing import random_heads

sys.path.append(str(ROOT / "scripts"))
import make_tiny_heads as tiny_heads

MEDUSA = [layout for layout in tiny_heads.LAYOUTS if layout.startswith("medusa")]


def by_hand(checkpoint: Any, head: int, hidden: Tensor) -> Tensor:
    """Logits over all of V of one head, from the tensors as the layout names them."""
    fields, tensors, _ = checkpoint
    tensors = {name.removeprefix("medusa_head."): x.double() for name, x in tensors.items()}
    if fields["model_type"] == "medusa" if "model_type" in fields else False:
        x = hidden + silu(hidden @ tensors[f"blocks.{head}.layers.0.weight"].T)
        name = "lm_head" if fields["original_lm_head"] else f"lm_heads.{head}"
        logits = x @ tensors[f"{name}.weight"].T
        if "token_map" not in tensors:
            return logits
        full = logits.new_full((*logits.shape[:-1], tiny.VOCAB), float("-inf"))
        full[..., tensors["token_map"].long()] = logits
        return full
    layers, x = fields["medusa_num_layers"], hidden
    for layer in range(layers):
        linear = f"{head}.{layer}.linear"
        x = x + silu(x @ tensors[f"{linear}.weight"].T + tensors[f"{linear}.bias"])
    return x @ tensors[f"{head}.{layers}.weight"].T


def level(depth: int, before: Frontier | None, root: int, width: int = 1) -> Frontier:
    """A frontier of some nodes below the first of the one before it."""
    nodes = torch.arange(width)[None] + 3 * depth
    parents = torch.zeros(1, width, dtype=torch.int64)
    return Frontier(
        depth, nodes % tiny.VOCAB, nodes, parents, nodes.double(), torch.tensor([[root]]), before
    )


def proposals(engine: Engine, ids: list[int], depths: int) -> list[Tensor]:
    """Draft logits over all of V by depth ``[n, V]``, the root being the last token."""
    with torch.no_grad():
        hidden = engine.target.read(torch.tensor([ids[:-1]]))
        proposer: Any = engine.parts.drafter.start(tiny.make_state([ids]), Features(hidden, [0]))  # type: ignore[union-attr]
        found, before = [], None
        for depth in range(depths):
            before = level(depth, before, len(ids) - 1, 1 + depth)
            proposal = proposer.propose(before)
            logits = proposal.logits
            if proposal.token_ids is not None:
                full = logits.new_full((1, before.width, tiny.VOCAB), float("-inf"))
                logits = full.index_copy(2, proposal.token_ids, logits.contiguous())
            found.append(logits[0])
    return found


@pytest.mark.parametrize("layout", MEDUSA)
def test_a_published_layout_drafts_what_its_tensors_say(
    plain: Engine, tmp_path: Path, layout: str
) -> None:
    checkpoint = tiny_heads.make(layout)
    folder = tiny_heads.write(checkpoint, tmp_path / layout)
    engine = plain.with_strategy("medusa", drafter=str(folder))
    ids = [5, 9, 1, 7, 3, 22]
    with torch.no_grad():
        hidden = plain.target.read(torch.tensor([ids[:-1]])).last[0, -1]
    for head, own in enumerate(proposals(engine, ids, tiny_heads.HEADS)):
        wanted = by_hand(checkpoint, head, hidden)
        torch.testing.assert_close(own, wanted.expand_as(own), atol=1e-9, rtol=1e-9)


def test_below_the_last_head_nothing_is_drafted(plain: Engine, tmp_path: Path) -> None:
    folder = tiny_heads.write(tiny_heads.make("medusa-pickle"), tmp_path)
    engine = plain.with_strategy("medusa", drafter=str(folder))
    *_, last = proposals(engine, [5, 9, 1], tiny_heads.HEADS + 1)
    assert (last == float("-inf")).all()


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "truncated_vocab_size"])
@pytest.mark.parametrize("size", [2**30, 2**40, 2**70])
def test_a_size_that_no_tensor_can_have_is_refused_by_its_field(
    plain: Engine, tmp_path: Path, field: str, size: int
) -> None:
    fields, tensors, name = tiny_heads.make("medusa-vllm-mapped")
    folder = tiny_heads.write(({**fields, field: size}, tensors, name), tmp_path)
    says = f"config.json has {field}={size}"
    with pytest.raises(CheckpointError, match=says):
        HEADS.describe(folder, None, None)
    with pytest.raises(CheckpointError, match=says):
        HEADS.load(folder, plain.target)


def test_heads_of_another_target_and_checkpoints_of_another_kind_are_refused(
    plain: Engine, head: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="none of Medusa heads"):
        HEADS.load(head, plain.target)
    other = tiny.make_model(tiny.llama_config(vocab_size=50))
    HEADS.save(random_heads(other), tmp_path / "other")
    with pytest.raises(CheckpointError, match="vocab_size 50, the target model has 60"):
        HEADS.load(tmp_path / "other", plain.target)
    fields, tensors, name = tiny_heads.make("medusa-vllm-mapped")
    twice = torch.full((40,), 3)
    folder = tiny_heads.write((fields, {**tensors, "token_map": twice}, name), tmp_path / "twice")
    with pytest.raises(CheckpointError, match="token_map must hold different tokens"):
        HEADS.load(folder, plain.target)
    with pytest.raises(SpecdecError, match="the drafter 'medusa' needs Medusa heads"):
        plain.with_strategy("medusa")


def test_a_given_vocabulary_cuts_what_is_drafted_and_changes_no_logit(plain: Engine) -> None:
    heads = random_heads(plain.target.model, drafted=20)  # the tokens 1, 3, ..., 39
    whole = proposals(plain.with_strategy("medusa", drafter=heads), [5, 9, 1], 2)
    options = {"drafter": {"checkpoint": heads, "vocabulary": 10}}
    cut = proposals(plain.with_strategy("medusa", options=options), [5, 9, 1], 2)
    for a, b in zip(whole, cut, strict=True):
        kept = (b > float("-inf")).nonzero()[:, 1].unique().tolist()
        assert kept == [1, 3, 5, 7, 9]
        torch.testing.assert_close(a[:, kept], b[:, kept])


def test_a_loaded_set_of_heads_is_copied(plain: Engine) -> None:
    heads = random_heads(plain.target.model)
    before = copy.deepcopy(heads.state_dict())
    engine = plain.with_strategy("medusa", drafter=heads, options={"drafter": {"dtype": "float32"}})
    engine.generate([5, 9], max_new_tokens=4)
    for name, each in heads.state_dict().items():
        assert torch.equal(each, before[name])
