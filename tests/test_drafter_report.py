"""The check of a head when an engine is made: a figure, and advice where a reading is wrong."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from heads import LAYERS, USUAL, in_layout
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, FalconConfig, MambaConfig

from specdec import Engine
from specdec.decoding.drafter_report import DrafterReport, Reading
from specdec.drafter_check import TargetText, report_on
from specdec.errors import DrafterWarning
from specdec.models.hf_target import HFTarget
from specdec_plugins.eagle.checkpoint import rewired
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.self_check import advice
from specdec_plugins.eagle.testing import eagle_head, random_eagle3_head


def learn(head: Eagle3Head, target: HFTarget, text: torch.Tensor, steps: int = 120) -> Eagle3Head:
    """Overfit a head on one text, with its own outputs fed back once.

    It is blind to embeddings, so that it has to read the hidden states.
    """
    norm = head.decoder.layers[0].input_layernorm.weight.requires_grad_(False)
    norm.zero_()
    plain = target.unaccelerated()
    plain.aux_layers = head.aux_layers
    with torch.no_grad():
        features = head.features(plain.read(text))[:, :-1].clone()
        embedded = plain.embed(text[:, 1:]).clone()
    n = features.shape[1]
    behind = torch.arange(n)[:, None] - torch.arange(n)
    positions = torch.arange(n)[None]
    masks = [behind >= 0, torch.cat([behind > 0, behind == 0], dim=1)]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(steps):
        cache, read, loss = DynamicCache(), head.fuse(features), torch.zeros(())
        for mask in masks:
            outputs = head(embedded, read, positions, mask[None, None], cache=cache)
            loss = loss + cross_entropy(head.logits(outputs)[0, :-1], text[0, 2:])
            read = torch.cat([read[:, :1], outputs[:, :-1]], dim=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


@pytest.fixture(scope="module")
def deep() -> Engine:
    model = tiny.make_model(tiny.llama_config(num_hidden_layers=LAYERS))
    return Engine(model, strategy="plain", tokenizer=tiny.make_tokenizer())


@pytest.fixture(scope="module")
def text(deep: Engine) -> torch.Tensor:
    """The text that the check compares with."""
    return TargetText().write(deep.target, deep.tokenizer).clone()


@pytest.fixture(scope="module")
def able(deep: Engine, text: torch.Tensor) -> Eagle3Head:
    """A head that knows the text, of residual after the norm and normed output."""
    flags = {"norm_before_residual": True, "norm_output": True, "draft_vocab_size": tiny.VOCAB}
    head = random_eagle3_head(deep.target.model, aux_layers=USUAL, **flags)
    return learn(head, deep.target, text)


def report_of(engine: Engine, drafter: Any, **options: Any) -> tuple[DrafterReport, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if options:
            given = {"drafter": {"checkpoint": str(drafter), **options}}
            made = engine.with_strategy("eagle3", options=given)
        else:
            made = engine.with_strategy("eagle3", drafter=drafter)
    report = made.drafter_report
    assert isinstance(report, DrafterReport)
    return report, [str(w.message) for w in caught if "the head predicts" in str(w.message)]


def test_a_head_that_predicts_well_says_so_and_warns_of_nothing(
    deep: Engine, able: Eagle3Head
) -> None:
    report, warned = report_of(deep, able)
    assert report.agreement > 0.9 and report.reading.agreement_fed_back > 0.9
    assert report.tokens == 48 and len(report.tried) == 4
    assert report.advice == "" and not warned


def test_agreement_is_the_share_of_tokens_that_the_head_itself_likes_best(
    deep: Engine, able: Eagle3Head, text: torch.Tensor
) -> None:
    """Compared with drafting: greedily, on a chain of one token, from every prefix."""
    report, _ = report_of(deep, able)
    options = {"policy": {"depth": 1, "top_k": 1, "budget": 1}}
    engine = deep.with_strategy("eagle3", drafter=able, options=options)
    start = text.shape[1] - report.tokens
    prompts = [text[0, : start + i].tolist() for i in range(report.tokens)]
    settings = {"temperature": 0, "max_new_tokens": 2, "eos_token_id": []}
    right = sum(next(iter(engine.start(p, **settings))).accepted[0] for p in prompts[:-1])
    assert abs(right / report.tokens - report.agreement) < 2 / report.tokens


WRONG = {
    "norm_before_residual": ({"norm_before_residual": False}, "norm_before_residual=True"),
    "aux_layers + 1": ({"aux_layers": [3, 5, 6]}, "aux_layers=[2, 4, 5]"),
    "aux_layers - 1": ({"aux_layers": [1, 3, 4]}, "aux_layers=[2, 4, 5]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_reading_is_told_and_the_better_one_named(
    deep: Engine, able: Eagle3Head, tmp_path: Path, case: str
) -> None:
    written = in_layout("vllm", able)
    written.fields |= {"norm_before_residual": True, "norm_output": True}
    options, better = WRONG[case]
    folder = written.save(tmp_path)
    report, warned = report_of(deep, folder, **options)
    best = max(report.tried, key=lambda reading: reading.score)
    assert best.options == better and best.agreement > 0.9
    name, value = better.split("=")
    assert len(warned) == 1 and warned[0] == report.advice
    assert f'options={{"drafter": {{"{name}": {value}}}}}' in warned[0]
    given = {name: eval(value)}  # noqa: S307
    again, quiet = report_of(deep, folder, **given)
    assert again.agreement > 0.9 and not quiet


def test_a_state_fed_back_without_its_norm_is_told(
    deep: Engine, able: Eagle3Head, tmp_path: Path
) -> None:
    """As where SpecForge's norm_output is taken for that of others."""
    with torch.no_grad():
        loud = random_eagle3_head(deep.target.model, **_flags(able))
        loud.load_state_dict(able.state_dict())
        loud.decoder.norm.weight.mul_(-1)  # what is fed back changes its sign without the norm
        loud.lm_head.weight.mul_(-1)
    head = learn(loud, deep.target, TargetText().write(deep.target, deep.tokenizer).clone(), 60)
    written = in_layout("specforge", head)
    written.fields |= {"norm_before_residual": True, "norm_output": True}
    report, warned = report_of(deep, written.save(tmp_path))
    assert report.agreement > 0.9 > 0.4 > report.reading.agreement_fed_back
    assert len(warned) == 1 and '"norm_output": True' in warned[0]
    assert max(report.tried, key=lambda reading: reading.score).options == "norm_output=True"


def _flags(head: Eagle3Head) -> dict[str, Any]:
    wiring = dataclasses.asdict(head.wiring)
    return {name: wiring[name] for name in ("aux_layers", "norm_before_residual", "norm_output",
                                            "draft_vocab_size")}  # fmt: skip


def test_a_head_for_another_model_is_told(deep: Engine, able: Eagle3Head) -> None:
    other = Engine(
        tiny.make_model(tiny.llama_config(num_hidden_layers=LAYERS), seed=7), strategy="plain"
    )
    report, warned = report_of(other, able)
    assert report.agreement < 0.1 and "for another model, or unfinished" in warned[0]


def test_an_aliass_own_head_is_looked_at_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = TargetText.write

    def noted(self: TargetText, *given: Any, **named: Any) -> torch.Tensor:
        written.append(1)
        return write(self, *given, **named)

    monkeypatch.setattr(TargetText, "write", noted)
    engine = Engine(strategy="eagle2")
    assert not written
    report = engine.drafter_report
    assert report is not None and report.agreement > 0.8 and report is engine.drafter_report
    assert written == [1]
    engine.with_strategy("eagle2", drafter=engine.selection.checkpoint)
    assert written == [1], "the same folder as the alias names"


def test_drafters_that_say_nothing_have_no_report(plain: Engine, draft: Path) -> None:
    assert plain.drafter_report is None
    assert plain.with_strategy("draft_model", drafter=draft).drafter_report is None


def test_making_an_engine_draws_no_random_number(plain: Engine, head3: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    plain.with_strategy("eagle3", drafter=head3)
    assert torch.equal(torch.get_rng_state(), before)


def recurrent(path: Path) -> tuple[Any, Path]:
    """A model that takes no cache of keys and values, and an EAGLE-1/2 head for it."""
    config = MambaConfig(
        hidden_size=32, num_hidden_layers=2, vocab_size=tiny.VOCAB, state_size=4, pad_token_id=0,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = tiny.make_model(config)
    model.config.max_position_embeddings = 64
    return model, Path(eagle_head(model, path))


def test_a_head_of_a_model_without_cache_is_looked_at_too(tmp_path: Path) -> None:
    model, head = recurrent(tmp_path)
    plain = Engine(model, strategy="plain", verifier="path")
    engine = plain.with_strategy("eagle2", drafter=head, verifier="path")
    assert engine.drafter_report is not None and engine.drafter_report.tokens == 48
    settings = {"max_new_tokens": 6, "temperature": 0}
    own, other = engine.generate([[1, 2, 3]], **settings), plain.generate([[1, 2, 3]], **settings)
    assert own[0].token_ids == other[0].token_ids


def test_text_without_cache_is_text_with_cache(deep: Engine, text: torch.Tensor) -> None:
    written = TargetText().write(deep.target, deep.tokenizer, uses_cache=False)
    both = min(written.shape[1], text.shape[1])  # a slow machine writes less
    assert torch.equal(written[:, :both], text[:, :both])


def test_other_readings_that_the_target_cannot_serve_are_left_out(tmp_path: Path) -> None:
    """A Falcon does not give the state before its final norm."""
    config = FalconConfig(
        hidden_size=32, num_hidden_layers=8, num_attention_heads=4, vocab_size=tiny.VOCAB,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = tiny.make_model(config)
    head = random_eagle3_head(model, aux_layers=(2, 4, 7))
    engine = Engine(model, strategy="plain").with_strategy("eagle3", drafter=head)
    tried = {reading.options for reading in engine.drafter_report.tried}
    assert "aux_layers=[1, 3, 6]" in tried and "aux_layers=[3, 5, 8]" not in tried


def test_a_check_that_fails_keeps_no_engine_from_being_made(deep: Engine, head3: Path) -> None:
    class Broken(HFTarget):
        def read(self, tokens: torch.Tensor) -> Any:
            raise RuntimeError("out of memory\nmore")

    broken = Broken(deep.target.model)
    head = random_eagle3_head(deep.target.model, aux_layers=USUAL)
    drafter = deep.with_strategy("eagle3", drafter=head).parts.drafter
    drafter = with_target(drafter, broken)
    with pytest.warns(DrafterWarning, match="RuntimeError: out of memory$"):
        assert report_on(drafter, TargetText(), broken, None) is None


def with_target(drafter: Any, target: HFTarget) -> Any:
    other = copy.copy(drafter)
    other.target = target
    return other


@pytest.mark.parametrize("after", [3, 20])
def test_text_ends_where_the_model_ends_it(deep: Engine, text: torch.Tensor, after: int) -> None:
    """Too short a text gives way to one from another prompt; here each is short."""
    start = text.shape[1] - 48
    written = text[0, start:].tolist()
    end = written[after]
    model = copy.deepcopy(deep.target.model)
    model.generation_config.eos_token_id = end
    own = TargetText()
    tokens = own.write(HFTarget(model), deep.tokenizer)[0].tolist()
    new = tokens[own.prompt :]
    assert end not in new[:-1]
    if written.index(end) >= 11:
        assert new == written[: written.index(end) + 1]
    else:
        assert len(new) >= written.index(end) + 1


@pytest.mark.parametrize(
    ("agreement", "tokens", "told"),
    [(0.13, 48, True), (0.13, 24, True), (0.13, 23, False), (0.09, 12, True), (0.21, 48, False)],
)
def test_a_head_of_little_use_is_told_by_a_measure_that_goes_with_the_tokens(
    agreement: float, tokens: int, told: bool
) -> None:
    reading = Reading("", agreement, agreement)
    assert bool(advice(reading, (), tokens, from_files=True)) == told


def test_of_a_head_of_little_use_it_is_told_that_it_names_another_target(
    deep: Engine, tmp_path: Path
) -> None:
    written = in_layout("speculators", random_eagle3_head(deep.target.model, aux_layers=USUAL))
    written.weights["lm_head.weight"].zero_()  # it drafts one token
    folder = written.save(tmp_path)
    _, warned = report_of(deep, folder)
    assert "Is it for another model, or unfinished?" in warned[0], "this model has no name"
    model = copy.deepcopy(deep.target.model)
    model.config.name_or_path = "org/model"
    _, warned = report_of(Engine(model, strategy="plain", tokenizer=deep.tokenizer), folder)
    assert "It names x as its target, and this model is org/model" in warned[0]


def test_a_loaded_head_is_not_told_of_options_that_it_is_refused(
    deep: Engine, able: Eagle3Head
) -> None:
    wrong = rewired(able, dataclasses.replace(able.wiring, norm_before_residual=False))
    _, warned = report_of(deep, wrong)
    assert "norm_before_residual=True" in warned[0] and "option" not in warned[0]
