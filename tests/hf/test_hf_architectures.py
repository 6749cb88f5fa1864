"""Specdec in generate writes transformers' own greedy tokens, on eight architectures."""

from __future__ import annotations

from typing import Any

import architectures
import pytest
import torch
from hf_batches import both

import specdec.hf

# Gemma 2 is not among them: in float64 transformers' own left-padded batches are NaN there.
EIGHT = ("gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "phi3", "qwen3")
PROMPTS = [
    torch.randint(1, 50, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    for n in (30, 3, 21, 12)
]


@pytest.mark.parametrize("name", EIGHT)
def test_greedy_tokens_are_transformers_own(name: str) -> None:
    model: Any = architectures.make_model(name)
    decoder = specdec.hf.decoder("lookup", options={"drafter": {"costs": False}})
    settings: dict[str, Any] = {"decoder": decoder, "eos_token_id": None}
    for prompts in (PROMPTS[:1], PROMPTS):
        theirs, ours = both(model, prompts, **settings)
        assert ours.equal(theirs)
        eos = int(theirs[0, -6])  # ends the first row early, and others where they have it
        theirs, ours = both(model, prompts, **{**settings, "eos_token_id": eos})
        assert ours.equal(theirs)
