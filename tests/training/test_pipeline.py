"""From a file of text to a head that the engine takes."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from accelerate import Accelerator
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from training_process import SHORT
from transformers import OPTConfig, OPTForCausalLM

from specdec import Engine, SpecdecError
from specdec.errors import OptionError
from specdec.progress import Reporter
from specdec.training import pipeline
from specdec.training.answer_options import make_answer_options
from specdec.training.documents import make_documents
from specdec.training.evaluation import TauMeter
from specdec.training.loop import Run
from specdec.training.pipeline import train
from specdec.training.prompts import prompts_of
from specdec.training.rows import Row, read_rows
from specdec.training.settings import make_settings
from specdec.training.split import split
from specdec_plugins.eagle.eagle3_recipe import Eagle3Recipe

Train = Callable[..., Any]


class Notes(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_several_processes_train_on_models_in_one_place(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    monkeypatch.setattr(pipeline, "processes", lambda *_: two)
    with pytest.raises(OptionError, match=r"^device_map='auto': each of the 2 processes has"):
        trained(device_map="auto")


def test_a_head_is_trained_measured_and_taken_by_the_engine(
    trained: Train, decoding: Engine, tmp_path: Path
) -> None:
    notes = Notes()
    fast: dict[str, Any] = {"steps": 120, "optimizer": "adamw", "learning_rate": 0.01}
    summary = trained(**fast, evaluations=4, tau_every=2, tau_tokens=16, progress=notes)
    measured = [entry for entry in summary.history if "agreement" in entry]
    assert summary.ended == "finished" and summary.steps == 120 == summary.history[-1]["step"]
    assert len(measured) == 4 and len(measured[0]["agreement"]) == 5
    assert measured[-1]["agreement"][0] > max(0.1, measured[0]["agreement"][0])
    best = next(entry for entry in measured if entry["step"] == summary.best_step)
    assert summary.tau == best["tau"] > 1 and list(summary.agreement) == best["agreement"]
    assert "tau" in measured[1] and "tau" not in measured[0]
    told = "\n".join(notes.notes)
    assert "60 documents" in told and "GB, about" in told and "step 120: held-out" in told
    assert summary.options["recipe"] == "eagle3"
    head = tmp_path / "head"
    card = (head / "README.md").read_text()
    assert "| toy | MIT | 60 |" in card and "held-out agreement" in card
    assert json.loads((head / "training.json").read_text())["agreement"] == list(summary.agreement)
    prompt = [5, 9, 30, 7]
    wanted = decoding.generate(prompt, max_new_tokens=20)
    for strategy in (summary.strategy, "eagle2", "auto"):
        own = decoding.with_strategy(strategy, drafter=head)
        found = own.generate(prompt, max_new_tokens=20)
        assert found.token_ids == wanted.token_ids, strategy
        assert found.stats.tau > 1 or strategy == "auto"


def test_a_draft_model_is_trained_by_the_same_loop(
    trained: Train, decoding: Engine, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 32, "heads": 4}
    summary = trained(
        trainer="draft-model",
        options=sizes,
        steps=60,
        optimizer="adamw",
        learning_rate=0.01,
        tau_every=3,
    )
    first, *_, last = [entry["agreement"] for entry in summary.history if "agreement" in entry]
    assert len(last) == 1 and last[0] > first[0] and summary.tau > 1
    own = decoding.with_strategy("draft_model", drafter=tmp_path / "head", acceptor="match")
    prompt = [5, 9, 30, 7]
    wanted = decoding.generate(prompt, max_new_tokens=20).token_ids
    assert own.generate(prompt, max_new_tokens=20).token_ids == wanted
    with pytest.raises(SpecdecError, match="heads is that of the model in start"):
        more = {**sizes, "start": str(tmp_path / "head")}
        trained(trainer="draft-model", options=more, out=tmp_path / "new")
    with pytest.raises(SpecdecError, match="vocabulary of 61 tokens"):
        other = tiny.make_model(tiny.llama_config(vocab_size=61))
        start = str(tiny.save_model(other, tmp_path / "other"))
        trained(trainer="draft-model", options={"start": start}, out=tmp_path / "new")


def test_the_same_call_again_trains_nothing(trained: Train, tmp_path: Path) -> None:
    first = trained()
    weights = load_file(tmp_path / "head" / "model.safetensors")
    notes = Notes()
    second = trained(progress=notes)
    assert second.history == first.history and "resumed at step 12" in " ".join(notes.notes)
    again = load_file(tmp_path / "head" / "model.safetensors")
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_the_card_says_what_was_in_force_and_what_all_calls_took(
    trained: Train, tmp_path: Path
) -> None:
    own: dict[str, Any] = {"options": {"recipe": "eagle3", "aux_layers": (1, 2)}, "steps": 1}
    own["regenerate"] = {"new_tokens": 6, "most": 20}
    first = trained(**own, work=tmp_path / "work")
    again = trained(**own, work=tmp_path / "work", out=tmp_path / "again")
    assert first.settings["learning_rate"] == 0.02 and first.options["step_decay"] == 0.8
    assert first.options["draft_vocab_size"] > 1 and first.answers["new_tokens"] == 6
    for stage in ("answers", "hidden states"):
        assert again.seconds[stage] == first.seconds[stage]
    assert all(stage in again.seconds for stage in ("answers", "hidden states", "training"))
    kept = [float(path.read_text()) for path in (tmp_path / "work").glob("*/seconds")]
    assert len(kept) == 2 and all(kept)
    assert "| answers: new_tokens | 6 |" in (tmp_path / "again" / "README.md").read_text()


def test_hidden_states_are_made_of_the_documents_that_are_read(
    trained: Train, tmp_path: Path
) -> None:
    summary = trained(steps=1, documents=10)
    (path,) = (tmp_path / "head.work").glob("features-*/manifest.json")
    assert json.loads(path.read_text())["count"] == 10 + summary.documents["held_out"]
    assert summary.documents["trained"] == 10


def test_runs_share_hidden_states_and_not_checkpoints(trained: Train, tmp_path: Path) -> None:
    for index, options in enumerate(({"recipe": "unrolled"}, {"recipe": "eagle1"}, {})):
        trained(options=options, out=tmp_path / str(index), work=tmp_path / "work")
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "work").iterdir())
    assert names == ["features", "run", "run", "run"]


def test_training_ends_when_agreement_no_longer_rises(trained: Train) -> None:
    summary = trained(
        steps=400, evaluations=100, patience=2, learning_rate=1e-9, adam_learning_rate=1e-9
    )
    assert summary.ended == "early"
    values = [sum(entry["agreement"]) for entry in summary.history if "agreement" in entry]
    assert len(values) < 100 and max(values[-2:]) <= max(values[:-2])
    assert summary.best_step < summary.steps


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 59)), min_size=8, max_size=60),
    st.integers(0, 9),
)
def test_documents_with_one_prompt_are_on_one_side(rows: list[tuple[int, int]], seed: int) -> None:
    assume(len({prompt for prompt, _ in rows}) > 5)
    data = [Row(prompt_ids=(prompt,), answer_ids=(answer, 3)) for prompt, answer in rows]
    documents = make_documents(data, None, length=8, vocab_size=60)
    settings = {"held_out": 0.2, "seed": seed}
    trained, held_out = split(documents, make_settings(settings))
    assert sorted([*trained, *held_out]) == list(range(len(documents.lengths)))
    sides = [{tuple(p) for p in documents.prompts(side)} for side in (trained, held_out)]
    assert all(sides) and not sides[0] & sides[1]
    fewest = min(Counter(prompt for prompt, _ in set(rows)).values())
    assert len(held_out) <= max(1, fewest, round(0.2 * len(documents.lengths)))
    fewer = split(documents, make_settings({**settings, "documents": 2}))
    assert fewer == (trained[:2], held_out)


def test_the_pieces_of_a_text_are_on_one_side(tokenizer: Any) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("ABCDEFGHIJKLMNOPQRST", k=80)) for _ in range(10)]
    rows = [Row(text=text) for text in texts]
    documents = make_documents(rows, tokenizer, length=20, vocab_size=60)
    assert len(documents.lengths) >= 40
    trained, held_out = split(documents, make_settings({"held_out": 0.25}))
    sides = [{documents.texts[index] for index in side} for side in (trained, held_out)]
    assert all(sides) and not sides[0] & sides[1]


def test_the_target_answers_the_prompts_of_the_data(
    trained: Train, decoding: Engine, tokenizer: Any, tmp_path: Path
) -> None:
    draw, path = random.Random(1), tmp_path / "chats.jsonl"
    letters = [chr(ord("A") + i) for i in range(20)]
    rows = [
        {"prompt": "".join(draw.choices(letters, k=5)), "response": "Z", "licence": "MIT"}
        for _ in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    notes = Notes()
    options = {"temperatures": (0, 1), "new_tokens": 12, "most": 24, "batch": 5}
    summary = trained(data=path, regenerate=options, progress=notes)
    assert summary.documents["trained"] + summary.documents["held_out"] == 24
    assert summary.documents["answer_tokens"] > 24
    assert "answers: 24, at most 288 tokens" in " ".join(notes.notes)
    (folder,) = (tmp_path / "head.work").glob("answers-*")
    found = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.open()]
    prompts = {prompt.ids for prompt in prompts_of(read_rows([path]), tokenizer)}
    assert len(found) == 24 and {tuple(row["prompt_ids"]) for row in found} <= prompts
    assert sorted({row["temperature"] for row in found}) == [0, 1]
    for row in found:
        if row["temperature"] == 0:
            own = decoding.generate(row["prompt_ids"], max_new_tokens=12, temperature=0)
            assert row["answer_ids"] == own.token_ids


def told(notes: list[str], pattern: str) -> tuple[float, ...]:
    """The numbers in the one note that fits."""
    (found,) = filter(None, (re.search(pattern, note) for note in notes))
    return tuple(float(each.replace(",", "")) for each in found.groups())


@pytest.mark.parametrize("recipe", ["unrolled", "eagle3"])
def test_every_stage_says_beforehand_how_much_it_will_do(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    monkeypatch.setattr("specdec.training.stages.GIGABYTE", 1.0)  # exact
    notes, options = Notes(), {"new_tokens": 6, "most": 30}
    given: dict[str, Any] = {"options": {"recipe": recipe}, "evaluations": 1}
    summary = trained(regenerate=options, steps=None, epochs=2.5, progress=notes, **given)
    (most,) = told(notes.notes, r"all take at most ([\d,.]+) GB")
    (size,) = told(notes.notes, r"^hidden states: .* ([\d,.]+) GB")
    assert 0.5 * most < size <= most
    kept = (tmp_path / "head.work").glob("features-*/*.safetensors")
    files = sum(path.stat().st_size for path in kept)
    assert size < files < size + 9000  # headers
    steps, tokens, passes = told(
        notes.notes, r"^training: ([\d,]+) steps, about ([\d,]+) tokens: ([\d.]+) passes"
    )
    assert (steps, passes) == (summary.steps, 2.5)
    assert tokens == pytest.approx(summary.tokens, rel=0.2)
    minutes = Notes()
    more = {"out": tmp_path / "more", "work": tmp_path / "head.work"}
    trained(regenerate=options, steps=None, minutes=0.01, progress=minutes, **more, **given)
    assert told(minutes.notes, r"^training: ([\d.]+) minutes") == (0.0,)


@pytest.mark.parametrize(
    ("trainer", "options", "says"),
    [
        ("eagle", {"aux_layers": (1, 9)}, "9 is none of the hidden states"),
        ("eagle", {"aux_layers": (3, 2, 1)}, "could not be saved: .* must be in ascending order"),
        ("eagle", {"aux_layers": (2, 2, 3)}, "could not be saved: .* must be in ascending order"),
        ("eagle", {"heads": 3}, "heads=3: the hidden size 32 must be a multiple"),
        ("eagle", {"recipe": "eagle1", "heads": 3}, "heads=3: the hidden size 32"),
        ("draft-model", {"hidden_size": 9}, "hidden_size=9 must be a multiple"),
        ("draft-model", {"start": "nowhere"}, "nowhere"),
        ("eagle", {"draft_vocab_size": 61}, "draft_vocab_size=61: the target model has 60 tokens"),
        ("eagle", {"recipe": "eagle1", "draft_vocab_size": 61}, "the target model has 60 tokens"),
        ("medusa", {"draft_vocab_size": 61}, "draft_vocab_size=61: the target model has 60 tokens"),
        ("hydra", {"draft_vocab_size": 61}, "draft_vocab_size=61: the target model has 60 tokens"),
    ],
    ids=str,
)
def test_what_a_recipe_refuses_is_refused_before_answers_and_hidden_states(
    trained: Train, tmp_path: Path, trainer: str, options: dict[str, Any], says: str
) -> None:
    made = {"answers": "answers-*/*.jsonl", "states": "features-*/*.safetensors"}
    for regenerate in ({"new_tokens": 6}, False):
        with pytest.raises(SpecdecError, match=says):
            trained(regenerate=regenerate, trainer=trainer, options=options)
        for files in made.values():
            assert not list((tmp_path / "head.work").glob(files))


def test_without_muon_the_optimizer_is_adamw_unless_muon_was_asked_for(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = trained(steps=2, optimizer="adamw", out=tmp_path / "adamw")
    monkeypatch.delattr(torch.optim, "Muon")
    notes = Notes()
    found = trained(steps=2, progress=notes)
    assert "optimizer: adamw, since torch" in " ".join(notes.notes)
    assert found.settings == wanted.settings and found.settings["optimizer"] == "adamw"
    own, other = (
        load_file(f / "model.safetensors") for f in (tmp_path / "head", tmp_path / "adamw")
    )
    assert all(torch.equal(own[name], other[name]) for name in other)
    for asked in ({"optimizer": "muon"}, {"learning_rate": 0.02}, {"adam_learning_rate": 0.003}):
        with pytest.raises(SpecdecError, match=r"muon.* has no Muon, which came with 2\.9"):
            trained(steps=2, out=tmp_path / "muon", **asked)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trainer": "eagel"}, "unknown trainer 'eagel': did you mean 'eagle'"),
        ({"options": {"recipes": "eagle1"}}, "unknown option of the trainer 'eagle': 'recipes'"),
        ({"options": {"recipe": "eagle2"}}, "trainer.recipe='eagle2'"),
        ({"rates": 1}, "unknown setting 'rates'"),
        ({"length": 0}, "length=0"),
        ({"optimizer": "adamw", "adam_learning_rate": 0.1}, "adam_learning_rate changes nothing"),
        ({"tau_every": 0, "tau_tokens": 9}, "tau_tokens changes nothing"),
        ({"minutes": 3}, "steps and minutes were both given"),
        ({"data": "nowhere.jsonl"}, "there is no file or folder"),
        ({"regenerate": {"temperature": 1}}, "unknown option of answers"),
        ({"regenerate": {"temperatures": (-1.0,)}}, "temperatures: -1.0"),
        ({"regenerate": {"new_tokens": 0}}, "new_tokens=0"),
        ({"regenerate": True}, "new_tokens=256: the target model's context holds 128"),
        ({"regenerate": {"longest_prompt": 1, "new_tokens": 9}}, "none of 60 prompts has at most"),
    ],
)
def test_what_cannot_be_done_is_refused(trained: Train, changes: Any, says: str) -> None:
    with pytest.raises(SpecdecError, match=says):
        trained(**changes)


def test_a_folder_that_something_else_is_in_is_refused(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "thesis.txt").write_text("A")
    with pytest.raises(SpecdecError, match="is not empty"):
        trained()
    with pytest.raises(SpecdecError, match="is a file"):
        trained(out=tmp_path / "head" / "thesis.txt")
    monkeypatch.chdir(tmp_path / "head")
    for path in (".", "/", "", "..", "nowhere/.."):
        with pytest.raises(SpecdecError, match="is no name: give the folder"):
            trained(out=path)


@pytest.mark.parametrize("inside", [".", "work", "../head/deep/work"])
def test_what_is_worked_with_is_no_part_of_the_checkpoint(
    trained: Train, tmp_path: Path, inside: str
) -> None:
    with pytest.raises(SpecdecError, match=r"work .* is in out .*: .* another folder"):
        trained(work=tmp_path / "head" / inside)
    assert not (tmp_path / "head").exists()


def test_a_drafter_that_does_not_say_what_it_is_made_of_is_not_overwritten(
    trained: Train, tmp_path: Path
) -> None:
    trained(steps=1)
    path = tmp_path / "head" / "training.json"
    said = json.loads(path.read_text())
    del said["made_from"]
    path.write_text(json.dumps(said))
    with pytest.raises(SpecdecError, match="what data it is made of was not written down"):
        trained(steps=1)
    assert json.loads(path.read_text()) == said


def test_a_drafter_of_another_kind_is_not_overwritten(
    trained: Train, data: Path, tokenizer: Any, tmp_path: Path
) -> None:
    trained(steps=1)
    before = (tmp_path / "head" / "model.safetensors").read_bytes()
    with pytest.raises(SpecdecError, match="of the trainer eagle, not draft-model"):
        trained(steps=1, trainer="draft-model", options={"hidden_size": 32, "heads": 4})
    other = tiny.make_model(tiny.tiny_models.CONFIGS["gpt2"](), dtype=torch.float32)
    with pytest.raises(SpecdecError, match=r"of the model .*, not "):
        train(other, tokenizer=tokenizer, data=data, out=tmp_path / "head", steps=1)
    assert (tmp_path / "head" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"options": {"recipe": "unrolled"}}, "recipe eagle3 there, unrolled here"),
        ({"options": {"unrolled_steps": 2}}, "unrolled_steps 3 there, 2 here"),
        ({"options": {"step_decay": 0.5}}, "step_decay 0.8 there, 0.5 here"),
        ({"steps": 2}, "steps 1 there, 2 here"),
        ({"steps": None}, "steps 1 there, not given here; epochs not given there, 5.0 here"),
        ({"learning_rate": 0.1}, "learning_rate 0.02 there, 0.1 here"),
        ({"seed": 1}, "seed 0 there, 1 here"),
        ({"regenerate": {"new_tokens": 6}}, "without --regenerate there"),
        ({"data": "few"}, "other data"),
    ],
    ids=str,
)
def test_a_finished_drafter_is_not_overwritten_by_another_run(
    trained: Train, data: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    trained(steps=1)
    head = tmp_path / "head"
    before = {path.name: path.read_bytes() for path in head.iterdir()}
    shutil.rmtree(tmp_path / "head.work")  # as the command says that one may
    if changes.get("data") == "few":
        few = tmp_path / "few.jsonl"
        few.write_text("".join(data.read_text().splitlines(keepends=True)[:20]))
        changes = {"data": few}
    with pytest.raises(SpecdecError, match=re.escape(says)) as error:
        trained(**{"steps": 1, **changes})
    for advice in ("another --out", "remove this folder", f"-o start={head}"):
        assert advice in str(error.value)
    assert {path.name: path.read_bytes() for path in head.iterdir()} == before
    assert not list(tmp_path.glob("head.work/features-*/*.safetensors"))


def test_a_finished_drafter_is_not_overwritten_though_settings_had_other_names_then(
    trained: Train, tmp_path: Path
) -> None:
    trained(steps=1)
    summary = tmp_path / "head" / "training.json"
    found = json.loads(summary.read_text())
    found["settings"]["rate"] = found["settings"].pop("learning_rate")
    summary.write_text(json.dumps(found))
    with pytest.raises(SpecdecError, match=r"learning_rate 0\.02 there, 0\.1 here"):
        trained(steps=1, learning_rate=0.1)
    assert json.loads(summary.read_text()) == found


def test_a_drafter_that_another_run_finished_meanwhile_is_not_overwritten(
    trained: Train, tmp_path: Path
) -> None:
    class Other(Reporter):
        def note(self, text: str) -> None:
            if text.startswith("training:"):
                trained(steps=2, work=tmp_path / "work")

    with pytest.raises(SpecdecError, match=r"steps 2 there, 1 here.*head\.work this run ends"):
        trained(steps=1, progress=Other())
    notes = Notes()
    trained(steps=1, out=tmp_path / "more", work=tmp_path / "head.work", progress=notes)
    assert "resumed at step 1" in " ".join(notes.notes)


def test_the_command_of_a_finished_drafter_makes_it_again_whatever_changes_no_weight(
    trained: Train, tmp_path: Path
) -> None:
    trained(steps=1)
    before = (tmp_path / "head" / "model.safetensors").read_bytes()
    trained(steps=1, tau_every=1, tau_tokens=4, save_every=1)
    shutil.rmtree(tmp_path / "head.work")
    trained(steps=1, options={"recipe": "eagle3", "step_decay": 0.8})
    assert (tmp_path / "head" / "model.safetensors").read_bytes() == before


def test_a_loss_that_is_not_finite_ends_the_run_and_nothing_is_published(
    trained: Train, tmp_path: Path
) -> None:
    with pytest.raises(SpecdecError, match=r"step \d+ .*(not finite|learning rate)"):
        trained(optimizer="adamw", learning_rate=1e30, clip=1e30)
    assert not (tmp_path / "head").exists()
    for path in (tmp_path / "head.work").glob("run-*/best-*/model.safetensors"):
        assert all(weight.isfinite().all() for weight in load_file(path).values())


@pytest.mark.parametrize("bad", [0, 1], ids=["the first batch", "the last batch"])
def test_a_loss_that_is_not_finite_changes_no_weight(
    trained: Train, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    runs: list[Run] = []
    made: dict[str, Tensor] = {}
    losses = count()
    resumed, loss_of = Run._resumed, Eagle3Recipe.loss

    def begin(run: Run, optimizers: Any) -> Any:
        runs.append(run)
        made.update({name: each.clone() for name, each in run.network.state_dict().items()})
        return resumed(run, optimizers)

    def loss(recipe: Any, network: Any, batch: Any) -> Tensor:
        return loss_of(recipe, network, batch) * (float("nan") if next(losses) == bad else 1.0)

    monkeypatch.setattr(Run, "_resumed", begin)
    monkeypatch.setattr(Eagle3Recipe, "loss", loss)
    with pytest.raises(SpecdecError, match="the loss of step 1 is nan, at the learning rate"):
        trained(accumulate=2)
    network = runs[0].network
    assert all(torch.equal(each, made[name]) for name, each in network.state_dict().items())
    read = "the loss is read once a step, when the backward passes are under way"
    assert next(losses) == 2 and any(each.grad is not None for each in network.parameters()), read


def test_a_gradient_that_is_not_finite_changes_no_weight(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another process has a loss that is not finite: gradients are of all, losses not."""
    runs: list[Run] = []
    made: dict[str, Tensor] = {}
    resumed = Run._resumed

    def begin(run: Run, optimizers: Any) -> Any:
        runs.append(run)
        made.update({name: each.clone() for name, each in run.network.state_dict().items()})
        next(iter(run.network.parameters())).register_hook(lambda gradient: gradient / 0)
        return resumed(run, optimizers)

    monkeypatch.setattr(Run, "_resumed", begin)
    with pytest.raises(SpecdecError, match=r"the norm of the gradient of step 1 is (nan|inf), at"):
        trained()
    state = runs[0].network.state_dict()
    assert all(torch.equal(each, made[name]) for name, each in state.items())


def test_a_start_is_known_by_its_weights_and_not_by_its_place(
    trained: Train, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    own: dict[str, Any] = {"options": {"start": str(start)}, "steps": 1, "out": tmp_path / "more"}
    trained(out=start, steps=1)
    trained(**own)
    first = load_file(tmp_path / "more" / "model.safetensors")
    moved = start.rename(tmp_path / "moved")
    notes = Notes()
    trained(**{**own, "options": {"start": str(moved)}, "progress": notes})
    assert "resumed at step 1" in " ".join(notes.notes)
    trained(out=start, steps=2)
    with pytest.raises(SpecdecError, match="other weights to begin from"):
        trained(**own)
    trained(**{**own, "out": tmp_path / "again", "work": tmp_path / "more.work"})
    second = load_file(tmp_path / "again" / "model.safetensors")
    assert not torch.equal(first["fc.weight"], second["fc.weight"])
    assert "resumed at step 1" in " ".join(notes.notes)
    with pytest.raises(SpecdecError, match="start and out are both"):
        trained(**{**own, "options": {"start": str(moved)}, "out": moved})


def test_too_few_documents_are_refused(trained: Train, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(data.read_text().splitlines()[0])
    with pytest.raises(SpecdecError, match="1 documents with 1 different prompt or text are too"):
        trained(data=path)
    path.write_text("".join(data.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(
        SpecdecError, match=r"held_out=0.99 of 20 documents is all.*--set held_out="
    ):
        trained(data=path, held_out=0.99)


def test_the_network_is_trained_where_the_target_is(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = property(lambda accelerator: torch.device("meta"))
    monkeypatch.setattr(Accelerator, "device", elsewhere)
    assert trained(steps=2).ended == "finished"


def test_measuring_tau_takes_a_small_part_of_the_run(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(meter: TauMeter, network: Any) -> float:
        time.sleep(2)
        return 1.5

    monkeypatch.setattr(TauMeter, "measure", slow)
    summary = trained(tau_every=1, evaluations=12, patience=0, tau_tokens=4)
    measured = [entry for entry in summary.history if "agreement" in entry]
    assert len(measured) == 12 and 1 <= sum("tau" in entry for entry in measured) <= 3


def test_any_architecture_gets_a_head(tokenizer: Any, data: Path, tmp_path: Path) -> None:
    for name in ("gpt2", "gemma2", "qwen3"):
        model = tiny.make_model(tiny.tiny_models.CONFIGS[name](), dtype=torch.float32)
        for recipe in ("unrolled", "eagle3"):
            options = {"recipe": recipe, **({"aux_layers": (1, 2)} if recipe == "eagle3" else {})}
            summary = train(
                model,
                tokenizer=tokenizer,
                data=data,
                out=tmp_path / f"{name}-{recipe}",
                work=tmp_path / "work",
                options=options,
                steps=2,
                length=48,
                batch_tokens=192,
                tau_prompts=2,
                tau_tokens=4,
                tau_every=1,
                evaluations=1,
                precision="float32",
            )
            assert summary.tau is not None and summary.tau >= 1


@pytest.mark.parametrize("recipe", ["unrolled", "eagle3"])
def test_a_model_whose_lm_head_is_narrower_than_its_layers_gets_a_head(
    tokenizer: Any, data: Path, tmp_path: Path, recipe: str
) -> None:
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64, "vocab_size": 60}
    config = OPTConfig(
        **sizes, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
        do_layer_norm_before=False, init_std=0.3, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = OPTForCausalLM(config).eval()
    options = {"recipe": recipe, **({"aux_layers": (1, 2)} if recipe == "eagle3" else {})}
    given: dict[str, Any] = {**SHORT, "tau_every": 1, "tau_prompts": 2, "tau_tokens": 4}
    out = tmp_path / "head"
    summary = train(model, tokenizer=tokenizer, data=data, out=out, options=options, **given)
    assert summary.tau is not None and summary.tau >= 1
    plain = Engine(model, strategy="plain", tokenizer=tokenizer)
    engine = plain.with_strategy("auto", drafter=out)
    for prompt in ([5], [6, 7, 8]):  # of one token nothing is read before the first step
        own, wanted = (
            each.generate(prompt, max_new_tokens=6, temperature=0) for each in (engine, plain)
        )
        assert own.token_ids == wanted.token_ids


def test_answers_that_the_length_would_cut_off_are_not_made(trained: Train, tmp_path: Path) -> None:
    draw, path = random.Random(2), tmp_path / "prompts.jsonl"
    sizes = [5] * 20 + [48, 60]
    rows = [{"prompt_ids": [draw.randrange(4, 60) for _ in range(size)]} for size in sizes]
    path.write_text("\n".join(json.dumps({**row, "answer_ids": [5]}) for row in rows))
    notes = Notes()
    trained(data=path, regenerate={"new_tokens": 6}, steps=2, length=48, progress=notes)
    assert "20 prompts; left out: 2 (no room for an answer in 48 tokens)" in notes.notes
    assert any(note.startswith("answers: 20, ") for note in notes.notes)
    path.write_text(json.dumps({**rows[-1], "answer_ids": [5]}))
    with pytest.raises(SpecdecError, match=r"all 1 prompts have no room .*a larger length"):
        trained(data=path, regenerate={"new_tokens": 6}, out=tmp_path / "other")


def test_answers_depend_on_the_prompt_and_not_on_the_batch(
    trained: Train, data: Path, tmp_path: Path
) -> None:
    texts = []
    for batch in (3, 7):
        options = {"temperatures": (1,), "new_tokens": 6, "most": 12, "batch": batch}
        places = {"out": tmp_path / f"head-{batch}", "work": tmp_path / str(batch)}
        trained(regenerate=options, steps=1, **places)
        (folder,) = (tmp_path / str(batch)).glob("answers-*")
        rows = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.open()]
        texts.append({tuple(row["prompt_ids"]): row["answer_ids"] for row in rows})
    assert texts[0] == texts[1] and len(texts[0]) == 12
    assert make_answer_options(True).temperatures == (0.0, 1.0)
