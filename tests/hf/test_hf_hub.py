"""The folder in the form of the hub, through transformers' own loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hf_batches import PROMPTS, padded

import specdec.hf
from specdec.errors import SpecdecError

CALL: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies the code of repositories to."""
    monkeypatch.setattr(hf.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))


def run(model: Any, rows: int = 1, **settings: Any) -> Any:
    return model.generate(
        **padded(PROMPTS[:rows]),
        custom_generate=str(specdec.hf.FOLDER),
        **{"trust_remote_code": True, **CALL, **settings},
    )


def test_it_decodes_as_transformers_does(model: Any, draft: Path) -> None:
    for rows in (1, 4):
        due = model.generate(**padded(PROMPTS[:rows]), **CALL)
        assert run(model, rows, strategy="lookup").equal(due)
        drafted = run(model, rows, strategy="draft_model", drafter=str(draft), acceptor="match")
        assert drafted.equal(due)


def test_its_code_does_not_run_unless_trusted(model: Any) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        run(model, trust_remote_code=False)


def test_stop_strings_and_streamers_reach_it(model: Any, tokenizer: Any) -> None:
    whole = model.generate(**padded(PROMPTS[:1]), **CALL)
    string = tokenizer.decode(whole[0, 14:16])
    stops: dict[str, Any] = {"tokenizer": tokenizer, "stop_strings": [string]}
    due = model.generate(**padded(PROMPTS[:1]), **stops, **CALL)
    assert due.shape[1] < whole.shape[1]
    streamer = hf.TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    assert run(model, strategy="lookup", streamer=streamer, **stops).equal(due)
    assert "".join(streamer) == tokenizer.decode(due[0, 10:])
    config = hf.GenerationConfig(stop_strings=[string], **CALL)
    found = model.generate(
        **padded(PROMPTS[:1]),
        custom_generate=str(specdec.hf.FOLDER),
        trust_remote_code=True,
        generation_config=config,
        tokenizer=tokenizer,
        strategy="lookup",
    )
    assert found.equal(due) and config.stop_strings == [string]
    other = hf.GenerationConfig(stop_strings=["never"])
    assert run(model, strategy="lookup", generation_config=other, **stops).equal(due)


@pytest.mark.parametrize("given", [None, "config"])
def test_stop_strings_of_the_models_own_reach_it(tokenizer: Any, given: Any) -> None:
    own = tiny.make_model()
    whole = own.generate(**padded(PROMPTS[:1]), **CALL)
    own.generation_config.stop_strings = [tokenizer.decode(whole[0, 14:16])]
    settings = {"tokenizer": tokenizer, **CALL}
    if given:
        settings["generation_config"] = hf.GenerationConfig(max_new_tokens=11)
    due = own.generate(**padded(PROMPTS[:1]), **settings)
    assert due.shape[1] < whole.shape[1]
    assert run(own, strategy="lookup", **settings).equal(due)
    assert own.generation_config.stop_strings


def test_it_refuses_what_the_function_refuses(model: Any) -> None:
    for more in ({"num_beams": 2}, {"assistant_model": model}):
        with pytest.raises(SpecdecError, match=next(iter(more))):
            run(model, strategy="lookup", **more)


def test_it_samples_by_torchs_seed(model: Any) -> None:
    texts = []
    for _ in range(2):
        torch.manual_seed(3)
        texts.append(run(model, strategy="lookup", do_sample=True))
    assert texts[0].equal(texts[1])
