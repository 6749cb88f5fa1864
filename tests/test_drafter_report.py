"""The check of a head when an engine is made: a figure, and advice where a reading is wrong."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from heads import LAYERS, USUAL, in_layout
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from specdec import Engine
from specdec.decoding.drafter_report import DrafterReport
from specdec.drafter_check import OwnText
from specdec.models.hf_target import HFTarget
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.testing import random_eagle3_head


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
    return OwnText().write(deep.target, deep.tokenizer).clone()


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
    head = learn(loud, deep.target, OwnText().write(deep.target, deep.tokenizer).clone(), 60)
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
    write = OwnText.write

    def noted(self: OwnText, *given: Any) -> torch.Tensor:
        written.append(1)
        return write(self, *given)

    monkeypatch.setattr(OwnText, "write", noted)
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
