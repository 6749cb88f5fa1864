"""EAGLE-3 heads at work: texts are plain decoding's, drafts do not depend on the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from heads import in_layout
from tiny import PROMPTS

from specdec import Engine
from specdec.acceleration import Acceleration
from specdec.errors import CheckpointError, OptionError
from specdec.models.hf_target import HFTarget
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.saving import save_head
from specdec_plugins.eagle.testing import random_eagle3_head

HEADS: dict[str, dict[str, Any]] = {
    "official": {},
    "whole vocabulary": {"draft_vocab_size": tiny.VOCAB},
    "last features": {"aux_layers": (), "fc": False},
    "one state": {"aux_layers": (1,)},
    "all flags": {
        "norm_before_residual": True,
        "norm_output": True,
        "norm_before_fc": True,
        "own_embedding": True,
        "num_hidden_layers": 2,
        "qk_norm": True,
    },
    "a window": {"sliding_window": 3, "fc_norm": True},
}
STRATEGIES = {
    "eagle3": tiny.EAGLE2,
    "eagle2": tiny.EAGLE2,
    "static_tree": {},
    "chain": {},
    "auto": tiny.AUTO,
}
GREEDY = {"max_new_tokens": 16, "temperature": 0}
SAMPLED = {"max_new_tokens": 16, "temperature": 1.0, "seed": 5}


@pytest.fixture(scope="module")
def folders(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("eagle3")
    for name, changes in HEADS.items():
        head = random_eagle3_head(model, **changes)
        if "fc" in changes:
            written = in_layout("vllm", head)
            written.fields["eagle_config"] = {"use_aux_hidden_state": False}
            written.save(base / name)
        else:
            save_head(head, base / name)
    return {name: base / name for name in HEADS}


def drafting(plain: Engine, folder: Path, strategy: str = "eagle3", **drafter: Any) -> Engine:
    options = {**STRATEGIES[strategy], "drafter": {"checkpoint": str(folder), **drafter}}
    return plain.with_strategy(strategy, options=options)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", HEADS)
def test_the_text_is_that_of_plain_decoding(
    plain: Engine, folders: dict[str, Path], name: str, strategy: str
) -> None:
    engine = drafting(plain, folders[name], strategy)
    assert isinstance(engine.parts.drafter.head, Eagle3Head)
    accepted = 0
    for settings in (GREEDY, SAMPLED):
        results = engine.generate(PROMPTS, **settings)
        assert [r.token_ids for r in results] == tiny.tokens(plain, PROMPTS, **settings)
        accepted += sum(r.stats.new_tokens - r.stats.target_forwards for r in results)
    assert accepted > 0


@pytest.mark.parametrize("name", HEADS)
def test_trees_do_not_depend_on_the_batch(
    plain: Engine, folders: dict[str, Path], name: str
) -> None:
    engine = drafting(plain, folders[name])
    steps, settings = 8, {**GREEDY, "max_new_tokens": 60}  # no row ends, or is near its limit
    together = tiny.steps(engine, PROMPTS, **settings)[:steps]
    for row, prompt in enumerate(PROMPTS):
        alone = tiny.steps(engine, prompt, **settings)[:steps]
        for step, single in zip(together, alone, strict=True):
            place = step.request_rows.index(row)
            if single.tree.size == 1:
                continue
            assert torch.equal(step.tree.tokens[place], single.tree.tokens[0])
            torch.testing.assert_close(
                step.tree.log_value[place], single.tree.log_value[0], atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("name", HEADS)
def test_a_session_drafts_as_if_it_had_read_all_at_once(
    plain: Engine, folders: dict[str, Path], name: str
) -> None:
    engine = drafting(plain, folders[name])
    session = engine.session()
    first = session.generate(PROMPTS[0], **GREEDY)
    longer = [*PROMPTS[0], *first.token_ids, 3, 9]
    resumed = list(session.start(longer, **GREEDY))
    fresh = tiny.steps(engine, longer, **GREEDY)
    assert len(resumed) == len(fresh)
    for own, other in zip(resumed, fresh, strict=True):
        assert torch.equal(own.tree.tokens, other.tree.tokens)
        torch.testing.assert_close(own.tree.log_value, other.tree.log_value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_head_may_have_another_dtype_than_its_target(
    plain: Engine, folders: dict[str, Path], name: str, dtype: str
) -> None:
    engine = drafting(plain, folders[name], dtype=dtype)
    assert engine.parts.drafter.head.dtype == getattr(torch, dtype)
    assert tiny.tokens(engine, PROMPTS, **SAMPLED) == tiny.tokens(plain, PROMPTS, **SAMPLED)


def test_a_float32_target_may_have_a_float64_head(model: Any, folders: dict[str, Path]) -> None:
    plain = Engine(model, strategy="plain", dtype="float32")
    engine = drafting(plain, folders["official"], dtype="float64")
    assert tiny.tokens(engine, PROMPTS, **GREEDY) == tiny.tokens(plain, PROMPTS, **GREEDY)


def test_a_draft_vocabulary_is_what_head_and_user_have_in_common(
    plain: Engine, folders: dict[str, Path]
) -> None:
    engine = drafting(plain, folders["official"], vocabulary=20)
    allowed = [token for token in range(20) if token % 4 != 3]
    assert engine.parts.drafter.vocabulary.tolist() == allowed
    for step in tiny.steps(engine, PROMPTS, **GREEDY):
        tokens = step.tree.tokens[:, 1:][step.tree.valid[:, 1:]]
        assert set(tokens.tolist()) <= set(allowed)
    whole = drafting(plain, folders["whole vocabulary"], vocabulary=20)
    assert whole.parts.drafter.vocabulary.tolist() == list(range(20))


def test_a_vocabulary_that_the_head_has_nothing_of_is_refused(
    plain: Engine, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "ids.json").write_text("[3, 7]")
    with pytest.raises(OptionError, match="none of which is given"):
        drafting(plain, folders["official"], vocabulary=str(tmp_path / "ids.json"))


def test_a_loaded_head_drafts_as_its_folder_does(
    plain: Engine, model: Any, folders: dict[str, Path]
) -> None:
    loaded = random_eagle3_head(model).float().train()
    for strategy in ("eagle3", "eagle2"):
        engine = plain.with_strategy(strategy, drafter=loaded, options=tiny.EAGLE2)
        assert tiny.tokens(engine, PROMPTS, **GREEDY) == tiny.tokens(plain, PROMPTS, **GREEDY)
        assert loaded.training and loaded.dtype == torch.float32
    with pytest.raises(OptionError, match="is loaded already"):
        options = {"drafter": {"norm_output": True}}
        plain.with_strategy("eagle3", drafter=loaded, options=options)
    other = Engine(tiny.make_model(tiny.llama_config(vocab_size=61)), strategy="plain")
    with pytest.raises(CheckpointError, match="that was given: it is for a target of vocab_size"):
        other.with_strategy("eagle3", drafter=loaded)


def test_the_drafter_eagle3_takes_no_other_head(
    plain: Engine, head: Path, folders: dict[str, Path]
) -> None:
    with pytest.raises(CheckpointError, match="is one of EAGLE-1/2, and the drafter 'eagle3'"):
        plain.with_strategy("eagle3", drafter=head)
    with pytest.raises(CheckpointError, match="EAGLE-1/2, which has no norm_output"):
        drafting(plain, head, "eagle2", norm_output=True)


def graph_as_it_is(graph: Any, inputs: Any) -> Any:
    """A compiler that compiles nothing."""
    return graph.forward


WAYS = {
    "as it is": Acceleration(),
    "packed": Acceleration(pack=True),
    "compiled": Acceleration(compile=True, backend=graph_as_it_is, compile_after=2),
}


@pytest.mark.parametrize("way", WAYS)
@torch.inference_mode()
def test_the_last_auxiliary_state_is_the_one_before_the_final_norm(model: Any, way: str) -> None:
    wide = {"hidden_size": 512, "intermediate_size": 512, "num_attention_heads": 8}
    own = tiny.make_model(tiny.llama_config(**wide), dtype=torch.float32)
    target = HFTarget(own, aux_layers=(0, 1, 2), acceleration=WAYS[way])
    norm = own.base_model.norm
    ids = torch.tensor([PROMPTS[0]])
    cache = target.new_cache(1, 64)
    n = ids.shape[1]
    hidden = target.prefill(ids, cache)
    cache.advance(torch.tensor([n]), n)
    one = torch.ones(1, 1, 1, dtype=torch.bool)
    read = [hidden, target.read(ids)]
    read += [target.forward(ids[:, :1], torch.tensor([[n]]), one, cache) for _ in range(6)]
    for each in read:
        assert len(each.aux) == 3
        torch.testing.assert_close(norm(each.aux[2]), each.last, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(each.aux[2], each.last, atol=0.1)
    torch.testing.assert_close(read[0].aux[0], target.embed(ids))
    torch.testing.assert_close(read[0].aux, read[1].aux, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["official", "all flags", "a window"])
def test_a_compiled_engine_writes_the_same_tokens(
    model: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plain = Engine(model, strategy="plain")
    monkeypatch.setattr("specdec.engine.Acceleration", lambda **given: Acceleration(
        **given, backend=graph_as_it_is, compile_after=2
    ))  # fmt: skip
    options = {
        "policy": {"depth": 2, "top_k": 2, "budget": 4},
        "drafter": {"checkpoint": str(folders[name])},
    }
    engine = Engine(model, strategy="eagle3", options=options, compile=True)
    for _ in range(3):
        assert tiny.tokens(engine, PROMPTS[0], **GREEDY) == tiny.tokens(plain, PROMPTS[0], **GREEDY)
    network = engine.parts.drafter.network
    assert network.failure is None and network.compiled_shapes > 0


@pytest.mark.parametrize("pack", [False, True])
def test_a_head_of_a_large_target_drafts_the_same_packed(pack: bool) -> None:
    wide = {"hidden_size": 512, "intermediate_size": 512, "num_attention_heads": 8}
    large = tiny.make_model(tiny.llama_config(**wide), dtype=torch.float32)
    plain = Engine(large, strategy="plain", pack=pack)
    engine = plain.with_strategy("eagle3", drafter=random_eagle3_head(large), options=tiny.EAGLE2)
    assert tiny.tokens(engine, PROMPTS[0], **GREEDY) == tiny.tokens(plain, PROMPTS[0], **GREEDY)


def test_an_engine_with_a_loaded_head_is_pickled_with_it(plain: Engine, model: Any) -> None:
    import pickle

    engine = plain.with_strategy("eagle3", drafter=random_eagle3_head(model), options=tiny.EAGLE2)
    before = tiny.tokens(engine, PROMPTS, **GREEDY)
    made = pickle.loads(pickle.dumps(engine))  # noqa: S301
    assert tiny.tokens(made, PROMPTS, **GREEDY) == before
