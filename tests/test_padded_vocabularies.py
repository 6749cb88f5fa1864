"""Draft models of the target's tokenizer whose vocabulary has another size draft common tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPTS

from specdec import Engine
from specdec.errors import CheckpointError, OptionError

SETTINGS: dict[str, Any] = {"max_new_tokens": 20, "eos_token_id": []}


def resized(model: Any, size: int) -> Any:
    """The same model with more tokens, that it never writes, or fewer."""
    torch.manual_seed(0)
    other = tiny.make_model(tiny.llama_config(vocab_size=size))
    common = min(size, model.config.vocab_size)
    with torch.no_grad():
        for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
            ours[:common].copy_(theirs[:common]) if ours.shape != theirs.shape else ours.copy_(
                theirs
            )
        if size > common:
            other.lm_head.weight[common:] = 0
    return other


def saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    tiny.save_model(model, folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("size", [52, 64, 96])
@pytest.mark.parametrize("acceptor", ["match", "rejection"])
def test_a_draft_model_that_is_padded_differently_drafts_the_common_tokens(
    plain: Engine, model: Any, tokenizer: Any, tmp_path: Path, size: int, acceptor: str
) -> None:
    folder = saved(resized(tiny.noisy_copy(model), size), tokenizer, tmp_path / "draft")
    engine = plain.with_strategy("draft_model", drafter=folder, acceptor=acceptor)
    for temperature in (0.0, 1.0):
        settings = {**SETTINGS, "temperature": temperature, "seed": 1}
        results = engine.generate(PROMPTS, **settings)
        if acceptor == "match" or temperature == 0:
            wanted = tiny.tokens(plain, PROMPTS, **settings)
            assert [result.token_ids for result in results] == wanted
        assert tiny.mean_tau(results) > 1.2
    read = {token for step in tiny.steps(engine, PROMPTS, **SETTINGS) for token in step.tree.tokens}
    assert all(int(token.max()) < 60 for token in read)


def test_target_tokens_that_the_draft_model_lacks_are_read_all_the_same(
    plain: Engine, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    folder = saved(resized(tiny.noisy_copy(model), 52), tokenizer, tmp_path / "draft")
    engine = plain.with_strategy("draft_model", drafter=folder, acceptor="match")
    prompt = [59, 58, 5, 53, 57, 1]
    assert tiny.tokens(engine, prompt, **SETTINGS, temperature=0) == tiny.tokens(
        plain, prompt, **SETTINGS, temperature=0
    )


def test_a_draft_vocabulary_stays_within_the_common_tokens(
    plain: Engine, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    folder = saved(resized(tiny.noisy_copy(model), 96), tokenizer, tmp_path / "draft")
    options = {"drafter": {"vocabulary": 61}}
    with pytest.raises(OptionError, match="60 tokens"):
        plain.with_strategy("draft_model", drafter=folder, options=options)
    options = {"drafter": {"vocabulary": 30}}
    engine = plain.with_strategy("draft_model", drafter=folder, options=options)
    assert engine.parts.drafter.vocabulary.tolist() == list(range(30))


def test_other_tokenizers_and_unknown_ones_are_refused(
    plain: Engine, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    draft = resized(tiny.noisy_copy(model), 64)
    folder = tiny.save_model(draft, tmp_path / "draft")
    with pytest.raises(CheckpointError, match=r"60: .*without the draft model's tokenizer"):
        plain.with_strategy("draft_model", drafter=folder)
    with pytest.raises(CheckpointError, match="without the draft model's tokenizer"):
        plain.with_strategy("draft_model", drafter=draft)
    saved(draft, tokenizer, folder)
    with pytest.raises(CheckpointError, match="without the target model's tokenizer"):
        Engine(model, strategy="draft_model", drafter=folder)
    other = (folder / "tokenizer.json").read_text().replace('"A": 4', '"?": 4')
    (folder / "tokenizer.json").write_text(other)
    with pytest.raises(CheckpointError, match=r"token 4 is '\?' to the draft model and 'A'"):
        plain.with_strategy("draft_model", drafter=folder)
