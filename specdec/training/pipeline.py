"""The whole way: data, the target's answers and hidden states, training, and the card."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from specdec.booleans import check_bools
from specdec.engine import Engine
from specdec.errors import OptionError
from specdec.files.locks import locked
from specdec.files.whole_files import add_seconds
from specdec.models.fingerprints import fingerprint, fingerprint_of_model
from specdec.plugin.components import Trainer
from specdec.progress import Reporter, reporter_of
from specdec.training.answer_options import AnswerOptions, make_answer_options
from specdec.training.answers import Answers
from specdec.training.batches import Batches
from specdec.training.card import (
    Summary,
    effective_options,
    effective_settings,
    publish,
    summarize,
)
from specdec.training.documents import Documents, make_documents
from specdec.training.evaluation import HeldOut, TauMeter
from specdec.training.features import KEPT_IN, Features, bytes_of_a_token, folder_name
from specdec.training.loop import Run
from specdec.training.optimizers import NO_MUON, usable_settings
from specdec.training.out_folder import check_out
from specdec.training.precision import precision_of
from specdec.training.prompts import Prompt, prompts_of
from specdec.training.recipe import Recipe
from specdec.training.rows import Row, read_rows
from specdec.training.schedule import amount, schedule_of
from specdec.training.settings import Settings, identity, make_settings
from specdec.training.split import split

DEFAULT_TRAINER = "eagle"
GIGABYTE = 1e9


def train(
    model: Any = None,
    *,
    data: str | Path | Iterable[str | Path],
    out: str | Path,
    trainer: str = DEFAULT_TRAINER,
    options: Mapping[str, Any] | None = None,
    work: str | Path | None = None,
    regenerate: Mapping[str, Any] | bool = False,
    progress: bool | Reporter = False,
    tokenizer: Any = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    plugins: Iterable[object] = (),
    trust_remote_code: bool = False,
    command: str = "",
    **settings: Any,
) -> Summary:
    """Train a drafter for a model and write it to a folder.

    The same call goes on where an earlier one stopped, in whatever stage that was.

    Example:
        >>> train("org/model", data="dialogues.jsonl", out="head", minutes=30)
        >>> Engine("org/model", drafter="head")

    Args:
        model: the target, as for ``Engine``.
        data: files, folders or names of data sets (:func:`~specdec.training.rows.read_rows`).
        out: folder of the finished checkpoint and its card; what another run has finished there is
            not written over.
        trainer: what is trained; see ``specdec_trainers``.
        options: of the trainer.
        work: folder of answers, hidden states and checkpoints; ``<out>.work`` if left out. Runs on
            the same data may share it, and then share what they can.
        regenerate: let the target answer the prompts of the data first; options of
            :class:`~specdec.training.answer_options.AnswerOptions`, or True.
        progress: whether to tell on stderr how it goes, or what is told.
        tokenizer, dtype, device, plugins, trust_remote_code: as for ``Engine``.
        command: how it was started, for the card.
        **settings: fields of :class:`~specdec.training.settings.Settings`.

    Returns:
        Figures of the run. ``ended`` is ``"interrupted"`` after Ctrl-C.

    Raises:
        OptionError, UnknownNameError: a value or name that is not allowed, data that cannot be
            used, or a folder with the finished drafter of another run.
        CheckpointError: a model or kept files that cannot be used.
    """
    check_bools(trust_remote_code=trust_remote_code)
    answers = make_answer_options(regenerate) if regenerate is not False else None
    return _Training(
        trainer=trainer,
        options=dict(options or {}),
        settings=make_settings(settings),
        reporter=reporter_of(progress),
        data=[data] if isinstance(data, (str, Path)) else list(data),
        out=Path(out).expanduser(),
        work=Path(work).expanduser() if work is not None else None,
        command=command,
    ).run(
        model,
        answers,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        plugins=plugins,
        trust_remote_code=trust_remote_code,
    )


def _told(left_out: Mapping[str, int]) -> str:
    return "".join(f"; left out: {n:,} ({why})" for why, n in left_out.items())


@contextmanager
def _alone(folder: Path, accelerator: Any, writes: object = True) -> Iterator[None]:
    """Within, the processes of this run are the only ones to write the folder, if they do."""
    with locked(folder) if accelerator.is_main_process and writes else nullcontext():
        accelerator.wait_for_everyone()
        yield


class _Training:
    """One call of :func:`train`, in stages."""

    def __init__(
        self,
        *,
        trainer: str,
        options: dict[str, Any],
        settings: Settings,
        reporter: Reporter,
        data: Sequence[str | Path],
        out: Path,
        work: Path | None,
        command: str,
    ) -> None:
        check_out(out)
        self.trainer, self.options, self.settings = trainer, options, settings
        self.reporter, self.data, self.out, self.command = reporter, data, out, command
        self.work = work or out.with_name(out.name + ".work")
        if self.work.resolve().is_relative_to(out.resolve()):
            raise OptionError(
                f"work {self.work} is in out {out}: what is worked with is no part of the "
                "checkpoint; give another folder to one of them"
            )
        self.seconds: dict[str, float] = {}

    def run(self, model: Any, answers: AnswerOptions | None, **loading: Any) -> Summary:
        """All stages, one after the other."""
        from specdec.training.processes import processes

        if self.work.exists() and not self.work.is_dir():
            raise OptionError(f"{self.work} is a file: give a folder to work in (--work)")
        accelerator = processes(loading.get("device"), self.settings.accumulate)
        if accelerator.num_processes > 1:
            loading["device"] = accelerator.device
        if not accelerator.is_main_process:
            self.reporter = Reporter()
        self._settle_optimizer()
        engine = Engine(model, strategy="plain", **loading)
        chosen = engine.registry.trainer(self.trainer)
        options = engine.registry.options("trainer", chosen, self.options)
        self._check_start(options)
        own = self._identity(engine, options, answers, accelerator.num_processes)
        check_out(self.out, own)
        if answers is not None:
            rows = self._answers(engine, chosen, options, answers, accelerator)
        else:
            rows = read_rows(self.data)
        documents = self._documents(engine, rows)
        trained, held_out = split(documents, self.settings)
        used = documents
        if self.settings.documents is not None:  # no hidden states of what is not read
            order = sorted([*trained, *held_out])
            number = {document: index for index, document in enumerate(order)}
            used = documents.only(order)
            trained, held_out = ([number[d] for d in side] for side in (trained, held_out))
        with torch.no_grad():
            recipe: Recipe = chosen.factory(options, engine.target, used.only(trained))
        start = self._check_network(recipe, options)
        made_from = {**own["made_from"], "documents": used.fingerprint, "start": start}
        values = effective_options(options.model_dump(mode="json", exclude={"start"}), recipe)
        own = {**own, "options": values, "made_from": made_from}
        check_out(self.out, own)
        features = self._features(engine, used, recipe, accelerator)
        run = self._run(engine, recipe, options, start, features, trained, held_out, accelerator)
        with _alone(run.folder, accelerator):
            ended = run.train()
        summary = summarize(
            run,
            ended,
            documents,
            trainer=self.trainer,
            model=engine.model_name,
            options=options.model_dump(mode="json"),
            command=self.command,
            answers=own["answers"],
            made_from=made_from,
            strategy=recipe.strategy if recipe.strategy in engine.registry.strategies else None,
            seconds=self.seconds,
            out=self.out,
            work=self.work,
        )
        if ended != "interrupted":
            self._publish(summary, run.best, own, accelerator)
        return summary

    def _identity(
        self, engine: Engine, options: BaseModel, answers: AnswerOptions | None, processes: int
    ) -> dict[str, Any]:
        """What decides the weights, as far as it is known at the beginning."""
        precision = precision_of(self.settings.precision, engine.target.device)
        settings = effective_settings(self.settings, precision)
        given = options.model_dump(mode="json", exclude={"start"}, exclude_none=True)
        return {
            "trainer": self.trainer,
            "model": engine.model_name,
            "options": given,
            "settings": {name: settings[name] for name in identity(self.settings)},
            "answers": answers.model_dump(mode="json") if answers is not None else None,
            "made_from": {
                "weights": fingerprint_of_model(engine.target.model),
                "processes": processes,
            },
        }

    def _publish(
        self, summary: Summary, best: Path, own: Mapping[str, Any], accelerator: Any
    ) -> None:
        """Write the checkpoint, unless another run has written the folder meanwhile.

        Raises:
            OptionError: it has, in every process.
        """
        from accelerate.utils import broadcast_object_list

        refused = [""]
        if accelerator.is_main_process:
            try:
                check_out(self.out, own)
                publish(summary, best)
            except OptionError as error:
                refused = [
                    f"{error}. With another --out and --work {self.work} this run ends at once"
                ]
        (told,) = broadcast_object_list(refused)
        if told:
            raise OptionError(told)

    def _check_network(self, recipe: Recipe, options: BaseModel) -> str | None:
        """Make the network once, before anything that takes long, so that sizes of which there is
        none are refused. Returns a fingerprint of the one that is begun from; None for a new one.
        """
        torch.manual_seed(self.settings.seed)
        network = recipe.make()
        # what is in it, wherever it lies
        return fingerprint_of_model(network) if getattr(options, "start", None) else None

    def _settle_optimizer(self) -> None:
        usable = usable_settings(self.settings)
        if usable.optimizer != self.settings.optimizer:
            self.reporter.note(f"optimizer: {usable.optimizer}, since {NO_MUON}")
        self.settings = usable

    def _check_start(self, options: BaseModel) -> None:
        start = getattr(options, "start", None)
        if start is not None and Path(start).expanduser().resolve() == self.out.resolve():
            raise OptionError(
                f"start and out are both {self.out}: give another folder to write to, so that what "
                "is begun from stays"
            )

    @contextmanager
    def _stage(self, name: str, kept: Answers | Features, accelerator: Any) -> Iterator[None]:
        """The seconds of a stage are kept beside what it makes, for the card of whatever run."""
        path, missing = kept.folder / "seconds", bool(kept.missing)
        began = time.monotonic()
        try:
            with _alone(kept.folder, accelerator, missing):
                yield
        finally:
            taken = time.monotonic() - began if missing and accelerator.is_main_process else 0.0
            self.seconds[name] = round(add_seconds(path, taken), 1)

    def _answers(
        self,
        engine: Engine,
        trainer: Trainer,
        trainer_options: BaseModel,
        options: AnswerOptions,
        accelerator: Any,
    ) -> Iterator[Row]:
        """The target's answers to the prompts of the data, kept or made now."""
        left_out: Counter[str] = Counter()
        length = self._length(engine)
        prompts = list(prompts_of(read_rows(self.data), engine.tokenizer, left_out, length))
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
            self.reporter.note(f"{len(prompts):,} prompts{_told(left_out)}")
        missing = answers.share(accelerator.process_index, accelerator.num_processes)
        if missing:
            recipe = self._stand_in(engine, trainer, trainer_options, prompts)
            self._check_network(recipe, trainer_options)
            tokens, seconds = answers.estimate(missing)
            count = sum(len(batch.prompts) for batch in missing)
            layers = len(recipe.needs.aux_layers)
            states = answers.most_tokens(length) * bytes_of_a_token(engine.target, layers, KEPT_IN)
            self.reporter.note(
                f"answers: {count:,}, at most {tokens:,} tokens and {seconds / 60:.1f} minutes; "
                f"the hidden states of all take at most {states / GIGABYTE:.2f} GB then"
            )
        with self._stage("answers", answers, accelerator):
            if missing:
                with self.reporter.stage("answers", count) as stage:
                    answers.make(missing, stage.advance)
        accelerator.wait_for_everyone()
        return answers.rows()

    def _stand_in(
        self, engine: Engine, trainer: Trainer, options: BaseModel, prompts: Sequence[Prompt]
    ) -> Recipe:
        """The recipe before there is an answer: what it needs does not depend on the text, and the
        prompts stand in for it."""
        ids = torch.tensor([token for prompt in prompts for token in prompt.ids])
        lengths = [len(prompt.ids) for prompt in prompts]
        stand_in = Documents(ids, torch.ones_like(ids, dtype=torch.bool), lengths)
        with torch.no_grad():
            recipe: Recipe = trainer.factory(options, engine.target, stand_in)
        return recipe

    def _length(self, engine: Engine) -> int:
        """Tokens of a document at most."""
        return min(self.settings.length, engine.target.context_limit)

    def _documents(self, engine: Engine, rows: Iterable[Row]) -> Documents:
        documents = make_documents(
            rows,
            engine.tokenizer,
            length=self._length(engine),
            vocab_size=engine.target.vocab_size,
            ends=engine.target.ends,
        )
        self.reporter.note(
            f"{len(documents.lengths):,} documents of {sum(documents.lengths):,} tokens, "
            f"{int(documents.answer.sum()):,} to learn from{_told(documents.left_out)}"
        )
        return documents

    def _features(
        self, engine: Engine, documents: Documents, recipe: Recipe, accelerator: Any
    ) -> Features:
        """The hidden states of all documents, kept or made now."""
        target = engine.target
        precision = precision_of(self.settings.precision, target.device)
        name = folder_name(target, documents, KEPT_IN, precision)
        features = Features(
            self.work / name, target, documents, recipe.needs.aux_layers, precision=precision
        )
        missing = features.share(accelerator.process_index, accelerator.num_processes)
        if missing:
            cost = features.estimate(missing)
            self.reporter.note(
                f"hidden states: {cost.tokens:,} tokens, {cost.bytes / GIGABYTE:.2f} GB, about "
                f"{cost.seconds / 60:.1f} minutes"
            )
        with self._stage("hidden states", features, accelerator):
            if missing:
                with self.reporter.stage("hidden states", cost.tokens) as stage:
                    features.make(missing, stage.advance)
        accelerator.wait_for_everyone()
        return features

    def _run(
        self,
        engine: Engine,
        recipe: Recipe,
        options: BaseModel,
        start: str | None,
        features: Features,
        trained: Sequence[int],
        held_out: Sequence[int],
        accelerator: Any,
    ) -> Run:
        settings, documents = self.settings, features.documents
        batches = Batches(
            features,
            trained,
            length=settings.length,
            tokens=settings.batch_tokens,
            seed=settings.seed,
        )
        meter = None
        if settings.tau_every and recipe.strategy in engine.registry.strategies:
            every = map(tuple, documents.prompts(held_out))  # several answers may have one prompt
            prompts = list(map(list, dict.fromkeys(every)))[: settings.tau_prompts]
            meter = TauMeter(engine, recipe, prompts, settings.tau_tokens)
        schedule = schedule_of(settings, batches, accelerator.num_processes)
        each = settings.accumulate * accelerator.num_processes
        self.reporter.note(f"training: {amount(schedule, batches, each)}")
        precision = precision_of(settings.precision, engine.target.device)
        values = options.model_dump(mode="json")
        if start is not None:
            values["start"] = start
        key = fingerprint(
            [self.trainer, values, identity(settings), str(precision)],
            [features.folder.name, accelerator.num_processes],
        )
        return Run(
            recipe=recipe,
            settings=settings,
            batches=batches,
            held_out=HeldOut(features, held_out, settings.length, settings.batch_tokens),
            tau=meter,
            schedule=schedule,
            precision=precision,
            folder=self.work / f"run-{key}",
            device=engine.target.device,
            accelerator=accelerator,
            reporter=self.reporter,
        )
