"""Reading a prompt: a draft network sees of an empty cache what a mask would let it see."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
import transformers as hf
from torch import Tensor

from specdec import Engine
from specdec.drafting.network_drafter import NetworkDrafter
from specdec.testing.tiny_models import SHAPE, VOCAB
from specdec_plugins.eagle.testing import random_eagle3_head
from specdec_plugins.hydra.testing import random_heads
from specdec_plugins.medusa.testing import random_heads as medusa_heads

LENGTHS = [23, 1, 6]
DRAFTERS = ["eagle", "eagle3", "eagle3, window", "draft_model", "draft_model, window"]
DRAFTERS += ["draft_model, few positions", "hydra", "hydra, prefix", "medusa"]


@pytest.fixture(params=DRAFTERS)
def drafter(request: pytest.FixtureRequest, plain: Engine, head: Path, draft: Path) -> Any:
    model, name = plain.target.model, request.param
    if name == "eagle":
        return plain.with_strategy("eagle2", drafter=head).parts.drafter
    if name.startswith("eagle3"):
        changes: dict[str, Any] = {"sliding_window": 3} if "window" in name else {}
        return plain.with_strategy(
            "eagle3", drafter=random_eagle3_head(model, **changes)
        ).parts.drafter
    if name == "draft_model":
        return plain.with_strategy("draft_model", drafter=draft).parts.drafter
    if name == "draft_model, window":
        small = tiny.make_model(hf.MistralConfig(**SHAPE, sliding_window=3))
        return plain.with_strategy("draft_model", drafter=small).parts.drafter
    if name == "draft_model, few positions":
        config = hf.GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=VOCAB, n_positions=18)
        small = tiny.make_model(config)
        return plain.with_strategy("draft_model", drafter=small).parts.drafter
    if name == "medusa":
        return plain.with_strategy("medusa", drafter=medusa_heads(model)).parts.drafter
    made = random_heads(model, prefix="prefix" in name)
    return plain.with_strategy("hydra", drafter=made).parts.drafter


@torch.no_grad()
def test_a_prompt_is_read_as_under_a_causal_mask(plain: Engine, drafter: Any) -> None:
    target, longest = plain.target, max(LENGTHS)
    target.aux_layers = drafter.needs.aux_layers
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (len(LENGTHS), longest), generator=generator)
    features = None
    if drafter.needs.hidden:
        features = drafter.fuse(drafter.features(target.read(tokens)))
    caches = [drafter.new_cache(len(LENGTHS), 4) for _ in range(2)]
    masks: list[Tensor | None] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(*given: Any, attn_mask: Tensor | None = None, **named: Any) -> Tensor:
        masks.append(attn_mask)
        return attention(*given, attn_mask=attn_mask, **named)

    with mock.patch("torch.nn.functional.scaled_dot_product_attention", watched):
        found = drafter.prefill(tokens, features, caches[0])
    # The base class's own, with a mask.
    due = NetworkDrafter.prefill(drafter, tokens, features, caches[1])
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(found[row, :length], due[row, :length])
        for own, other in zip(caches[0].stores, caches[1].stores, strict=True):
            torch.testing.assert_close(own[:, row, :length], other[:, row, :length])
    assert all((mask is not None) is drafter.windowed for mask in masks)
    assert masks or not caches[0].stores


@pytest.mark.parametrize("strategy", ["eagle2", "eagle2+draft_model"])
def test_a_batch_whose_prompts_differ_in_length_drafts_as_each_prompt_alone(
    plain: Engine, head: Path, draft: Path, strategy: str
) -> None:
    own = tiny.engine(plain, strategy, head if tiny.needs_head(strategy) else draft)
    settings: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0, "eos_token_id": []}
    together = tiny.steps(own, tiny.PROMPTS, **settings)[0].tree
    for row, prompt in enumerate(tiny.PROMPTS):
        alone = tiny.steps(own, prompt, **settings)[0].tree
        valid = together.valid[row]
        assert together.tokens[row, valid].tolist() == alone.tokens[0, alone.valid[0]].tolist()
