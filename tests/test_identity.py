"""Under ``match`` every strategy gives plain decoding's tokens, on many architectures.

Each model is random and in float64, each batch is ragged and holds a one-token prompt, and the eos
is a token that plain decoding does produce. At temperature 0 plain decoding is in turn compared
with transformers' own ``generate``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from tiny import EOS, PROMPTS

from specdec import Engine
from specdec.request.seeds import row_seeds
from specdec.testing.tiny_models import CONFIGS, SHAPE, WINDOW

NO_KV = {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}
MLA = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8}
MLA |= {"qk_nope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 4, "num_experts_per_tok": 2}
MLA |= {"n_group": 1, "topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
MLA |= {"n_shared_experts": 1}
# name: config, whether it has experts. The first ones run by default, the others are slow.
QUICK: dict[str, Callable[[], Any]] = {
    **CONFIGS,
    "qwen2-window": lambda: hf.Qwen2Config(
        **SHAPE, **WINDOW, use_sliding_window=True, max_window_layers=1
    ),
    "mixtral": lambda: hf.MixtralConfig(**SHAPE, sliding_window=None, num_local_experts=4),
    "cohere2": lambda: hf.Cohere2Config(**SHAPE, **WINDOW),
    "gpt-neox": lambda: hf.GPTNeoXConfig(**NO_KV),
}
SLOW: dict[str, Callable[[], Any]] = {
    "gemma": lambda: hf.GemmaConfig(**SHAPE, head_dim=8),
    "gemma3": lambda: hf.Gemma3TextConfig(**SHAPE, **WINDOW, head_dim=8),
    "phi3-window": lambda: hf.Phi3Config(**SHAPE, **WINDOW),
    "starcoder2-window": lambda: hf.Starcoder2Config(**SHAPE, **WINDOW),
    "cohere": lambda: hf.CohereConfig(**SHAPE),
    "granite": lambda: hf.GraniteConfig(**SHAPE, logits_scaling=2.0),
    "olmo2": lambda: hf.Olmo2Config(**SHAPE),
    "deepseek-v3": lambda: hf.DeepseekV3Config(**{**SHAPE, **MLA}),
}
EXPERTS = {"mixtral", "deepseek-v3"}
NEW = 20
# By default a strategy runs on every third architecture; all on all is slow.
TURNS = 3


@pytest.fixture(
    scope="module", params=[*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]
)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plain engine on one architecture, folders of a head and of a draft model, its number."""
    name = request.param
    kwargs = {"experts_implementation": "eager"} if name in EXPERTS else {}
    model = tiny.make_model({**QUICK, **SLOW}[name](), **kwargs)
    folder = tmp_path_factory.mktemp(name)
    # A saved model forgets how its experts run, and the other ways need float32.
    draft = tiny.make_model() if name in EXPERTS else tiny.noisy_copy(model)
    tiny.save_model(draft, folder / "draft")
    number = [*QUICK, *SLOW].index(name)
    head = tiny.make_head(folder / "head", model)
    return Engine(model, strategy="plain"), head, folder / "draft", number


def variants(plain: Engine, head: Path, draft: Path, names: Any = tiny.STRATEGIES) -> Any:
    return {n: tiny.engine(plain, n, head if tiny.needs_head(n) else draft) for n in names}


def turn(number: int) -> list[str]:
    """The strategies whose turn it is on the ``number``-th architecture."""
    return [name for n, name in enumerate(tiny.STRATEGIES) if (n + number) % TURNS == 0]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_strategy_gives_plain_decodings_tokens(
    family: Any, temperature: float, every: bool
) -> None:
    plain, head, draft, number = family
    names = list(tiny.STRATEGIES) if every else turn(number)
    settings = {"max_new_tokens": NEW, "temperature": temperature, "seed": 3}
    eos = tiny.tokens(plain, PROMPTS, **settings)[0][NEW // 2]
    settings["eos_token_id"] = eos
    results = plain.generate(PROMPTS, **settings)
    wanted = [r.token_ids for r in results]
    assert results[0].finish_reason == "eos"
    if temperature == 0:
        model = plain.target.model
        assert wanted == [tiny.greedy_reference(model, p, NEW, eos) for p in PROMPTS]
    for name, engine in variants(plain, head, draft, names).items():
        assert tiny.tokens(engine, PROMPTS, **settings) == wanted, name


def test_every_strategy_has_its_turn() -> None:
    turns = [name for number in range(len(QUICK)) for name in turn(number)]
    assert all(turns.count(name) >= len(QUICK) // TURNS for name in tiny.STRATEGIES)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_prompt_alone_gives_what_it_gives_in_a_batch(family: Any, every: bool) -> None:
    plain, head, draft, number = family
    names = ["eagle2", "eagle2+draft_model"]
    names = names if every else names[number % 2 :][:1]
    settings = {"max_new_tokens": NEW, "temperature": 1.0, "eos_token_id": EOS}
    wanted = tiny.tokens(plain, PROMPTS, seed=4, **settings)
    engines = variants(plain, head, draft, names)
    for name, engine in engines.items():
        for row, seed in enumerate(row_seeds(4, len(PROMPTS))):
            assert tiny.tokens(engine, PROMPTS[row], seed=[seed], **settings) == wanted[row], name


def test_drafts_are_accepted_so_that_identity_means_something(
    eagle: Engine, dynamic: Engine
) -> None:
    for engine, least in ((eagle, 1.2), (dynamic, 2.0)):
        for temperature in (0.0, 1.0):
            results = engine.generate(PROMPTS, max_new_tokens=30, temperature=temperature, seed=3)
            assert tiny.mean_tau(results) > least - 0.3 * temperature


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_float32_gives_the_same_tokens_on_the_tiny_model(
    temperature: float, tmp_path: Path
) -> None:
    model = tiny.make_model(dtype=torch.float32)
    plain = Engine(model, strategy="plain")
    head = tiny.make_head(tmp_path / "head", tiny.make_model())
    draft = tiny.save_model(tiny.noisy_copy(model), tmp_path / "draft")
    settings = {"max_new_tokens": 40, "temperature": temperature, "seed": 8}
    wanted = tiny.tokens(plain, PROMPTS, **settings)
    for name, engine in variants(plain, head, draft).items():
        assert tiny.tokens(engine, PROMPTS, **settings) == wanted, name


def test_the_path_verifier_agrees_with_the_tree_verifier(plain: Engine, draft: Path) -> None:
    settings = {"max_new_tokens": 12, "temperature": 1.0, "seed": 1}
    name = "eagle2+draft_model"
    by_tree, by_path = (
        tiny.steps(tiny.engine(plain, name, draft, verifier=v), PROMPTS, **settings)
        for v in ("tree", "path")
    )
    for one, other in zip(by_tree, by_path, strict=True):
        assert one.new_tokens == other.new_tokens
        both = one.tree.valid & one.verification.active[:, None]
        torch.testing.assert_close(one.verification.logits[both], other.verification.logits[both])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_do_not_depend_on_their_neighbours_or_their_order(
    eagle: Engine, dynamic: Engine, temperature: float
) -> None:
    prompts, seeds = [*PROMPTS, [30, 31, 32, 33]], [100, 101, 102, 103]
    settings = {"max_new_tokens": 16, "temperature": temperature, "eos_token_id": EOS}
    for engine in (eagle, dynamic):
        wanted = tiny.tokens(engine, prompts, seed=seeds, **settings)
        for order in ([3, 1, 0, 2], [1, 1, 2], [2]):
            got = tiny.tokens(
                engine, [prompts[i] for i in order], seed=[seeds[i] for i in order], **settings
            )
            assert got == [wanted[i] for i in order]


def test_another_seed_gives_another_text(dynamic: Engine) -> None:
    texts = [
        tiny.tokens(dynamic, PROMPTS, max_new_tokens=12, temperature=1.0, seed=s) for s in (1, 2)
    ]
    assert all(a != b for a, b in zip(*texts, strict=True))


def test_a_one_token_prompt_gives_the_head_nothing_to_read_so_it_abstains(eagle: Engine) -> None:
    first, *_ = tiny.steps(eagle, PROMPTS, max_new_tokens=4, temperature=0)
    drafted = first.tree.valid.sum(dim=1).tolist()
    assert drafted == [13, 1, 13]
    assert first.tried[1] == 0 and len(first.new_tokens[1]) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drafter_in_another_dtype_changes_no_token(
    plain: Engine, head: Path, temperature: float
) -> None:
    settings = {"max_new_tokens": 16, "temperature": temperature, "seed": 5}
    options = {**tiny.EAGLE2, "drafter": {"checkpoint": str(head), "dtype": "bfloat16"}}
    low = plain.with_strategy("eagle2", options=options)
    assert low.parts.drafter.head.fc.weight.dtype == torch.bfloat16
    for prompts in (PROMPTS, [[4], [9]]):
        assert tiny.tokens(low, prompts, **settings) == tiny.tokens(plain, prompts, **settings)
    assert tiny.mean_tau(low.generate(PROMPTS, **settings)) > 1.05


def test_decoding_within_autocast_is_the_models_own_there() -> None:
    """The engine is made within too, as by the first call of a function for ``generate``."""
    model = tiny.make_model(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        engine = Engine(model, strategy="plain")
        ours = tiny.tokens(engine, tiny.PROMPTS[0], max_new_tokens=8, temperature=0)
        prompt = torch.tensor([tiny.PROMPTS[0]])
        theirs = model.generate(prompt, max_new_tokens=8, do_sample=False)
    assert ours == theirs[0, prompt.shape[1] :].tolist()
