"""The stages before training, whose results are kept for other runs on the same data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel

from specdec.engine import Engine
from specdec.files.atomic_files import add_seconds
from specdec.files.locks import locked
from specdec.models.fingerprints import fingerprint, fingerprint_of_model
from specdec.plugin.components import Trainer
from specdec.progress import Reporter
from specdec.training.answer_options import AnswerOptions
from specdec.training.answers import Answers
from specdec.training.documents import Documents, make_documents
from specdec.training.hidden_state_store import (
    KEPT_IN,
    HiddenStateStore,
    bytes_of_a_token,
    folder_name,
)
from specdec.training.precision import precision_of
from specdec.training.prompts import Prompt, prompts_of
from specdec.training.recipe import Recipe
from specdec.training.rows import Row, read_rows
from specdec.training.settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator

GIGABYTE = 1e9


@dataclass
class Stages:
    """The data of a run: the target's answers, the documents and their hidden states.

    Attributes:
        engine: of the target, which decodes plainly.
        accelerator: of accelerate.
        settings: of the run.
        work: folder of what is kept.
        reporter: is told how it goes.
        seconds: that each stage has taken, in all runs that share what it makes.
    """

    engine: Engine
    accelerator: Accelerator
    settings: Settings
    work: Path
    reporter: Reporter
    seconds: dict[str, float] = field(default_factory=dict)

    def answers(
        self,
        data: Sequence[str | Path],
        trainer: Trainer,
        trainer_options: BaseModel,
        options: AnswerOptions,
    ) -> Iterator[Row]:
        """The target's answers to the prompts of the data, kept or made now."""
        engine, accelerator, length = self.engine, self.accelerator, self._longest
        left_out: Counter[str] = Counter()
        prompts = list(prompts_of(read_rows(data), engine.tokenizer, left_out, length))
        key = fingerprint(
            [fingerprint_of_model(engine.target.model), options.model_dump(mode="json")],
            [self.settings.seed, [list(prompt.ids) for prompt in prompts]],
        )
        answers = Answers(
            self.work / f"answers-{key}", engine, prompts, options, self.settings.seed
        )
        if answers.left_out:
            left_out["too long"] += answers.left_out
        if left_out:
            self.reporter.note(f"{len(prompts):,} prompts{_left_out(left_out)}")
        missing = answers.share(accelerator.process_index, accelerator.num_processes)
        if missing:
            recipe = self._recipe_of_prompts(trainer, trainer_options, prompts)
            check_network(recipe, trainer_options, self.settings.seed)
            tokens, seconds = answers.estimate(missing)
            count = sum(len(batch.prompts) for batch in missing)
            layers = len(recipe.needs.aux_layers)
            states = answers.most_tokens(length) * bytes_of_a_token(engine.target, layers, KEPT_IN)
            self.reporter.note(
                f"answers: {count:,}, at most {tokens:,} tokens and {seconds / 60:.1f} minutes; "
                f"the hidden states of all take at most {states / GIGABYTE:.2f} GB then"
            )
        with self._timed("answers", answers):
            if missing:
                with self.reporter.stage("answers", count) as stage:
                    answers.make(missing, stage.advance)
        accelerator.wait_for_everyone()
        return answers.rows()

    def documents(self, rows: Iterable[Row]) -> Documents:
        """What is learned from: the rows as tokens."""
        target = self.engine.target
        documents = make_documents(
            rows,
            self.engine.tokenizer,
            length=self._longest,
            vocab_size=target.vocab_size,
            ends=target.ends,
        )
        self.reporter.note(
            f"{len(documents.lengths):,} documents of {sum(documents.lengths):,} tokens, "
            f"{int(documents.answer.sum()):,} to learn from{_left_out(documents.left_out)}"
        )
        return documents

    def features(self, documents: Documents, recipe: Recipe) -> HiddenStateStore:
        """The hidden states of all documents, kept or made now."""
        target, accelerator = self.engine.target, self.accelerator
        precision = precision_of(self.settings.precision, target.device)
        name = folder_name(target, documents, KEPT_IN, precision)
        features = HiddenStateStore(
            self.work / name, target, documents, recipe.needs.aux_layers, precision=precision
        )
        missing = features.share(accelerator.process_index, accelerator.num_processes)
        if missing:
            cost = features.estimate(missing)
            self.reporter.note(
                f"hidden states: {cost.tokens:,} tokens, {cost.bytes / GIGABYTE:.2f} GB, about "
                f"{cost.seconds / 60:.1f} minutes"
            )
        with self._timed("hidden states", features):
            if missing:
                with self.reporter.stage("hidden states", cost.tokens) as stage:
                    features.make(missing, stage.advance)
        accelerator.wait_for_everyone()
        return features

    def _recipe_of_prompts(
        self, trainer: Trainer, options: BaseModel, prompts: Sequence[Prompt]
    ) -> Recipe:
        """The recipe before there is an answer: what it needs does not depend on the text, and the
        prompts stand in for it."""
        ids = torch.tensor([token for prompt in prompts for token in prompt.ids])
        lengths = [len(prompt.ids) for prompt in prompts]
        stand_in = Documents(ids, torch.ones_like(ids, dtype=torch.bool), lengths)
        with torch.no_grad():
            recipe: Recipe = trainer.factory(options, self.engine.target, stand_in)
        return recipe

    @property
    def _longest(self) -> int:
        """Tokens of a document at most."""
        return min(self.settings.length, self.engine.target.context_limit)

    @contextmanager
    def _timed(self, name: str, kept: Answers | HiddenStateStore) -> Iterator[None]:
        """Within, the stage writes its folder alone; its seconds are kept beside what it makes, for
        the card of whatever run."""
        path, missing = kept.folder / "seconds", bool(kept.missing)
        began = time.monotonic()
        try:
            with writing_alone(kept.folder, self.accelerator, missing):
                yield
        finally:
            told = missing and self.accelerator.is_main_process
            taken = time.monotonic() - began if told else 0.0
            self.seconds[name] = round(add_seconds(path, taken), 1)


def check_network(recipe: Recipe, options: BaseModel, seed: int) -> str | None:
    """Make the network once, before anything that takes long, so that sizes of which there is none
    are refused.

    Returns:
        A fingerprint of the network that is begun from, wherever it lies; None for a new one.
    """
    torch.manual_seed(seed)
    network = recipe.make()
    return fingerprint_of_model(network) if getattr(options, "start", None) else None


@contextmanager
def writing_alone(folder: Path, accelerator: Accelerator, writes: object = True) -> Iterator[None]:
    """Within, the processes of this run are the only ones to write the folder, if they do."""
    with locked(folder) if accelerator.is_main_process and writes else nullcontext():
        accelerator.wait_for_everyone()
        yield


def _left_out(left_out: Mapping[str, int]) -> str:
    return "".join(f"; left out: {n:,} ({why})" for why, n in left_out.items())
