"""The whole way: data, the target's answers and hidden states, training, and the card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel

from specdec.booleans import check_bools
from specdec.engine import Engine
from specdec.errors import OptionError
from specdec.models.fingerprints import fingerprint, fingerprint_of_model
from specdec.progress import Reporter, reporter_of
from specdec.training.answer_options import AnswerOptions, make_answer_options
from specdec.training.batches import Batches
from specdec.training.card import (
    Summary,
    effective_options,
    effective_settings,
    publish,
    summarize,
)
from specdec.training.documents import Documents
from specdec.training.evaluation import HeldOut, TauMeter
from specdec.training.hidden_state_store import HiddenStateStore
from specdec.training.loop import Run
from specdec.training.optimizers import NO_MUON, usable_settings
from specdec.training.out_folder import check_out
from specdec.training.precision import precision_of
from specdec.training.processes import agreed, processes
from specdec.training.recipe import Recipe
from specdec.training.rows import read_rows
from specdec.training.schedule import amount, schedule_of
from specdec.training.settings import Settings, identity, make_settings
from specdec.training.split import split
from specdec.training.stages import Stages, check_network, writing_alone

if TYPE_CHECKING:
    from accelerate import Accelerator

DEFAULT_TRAINER = "eagle"


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
    device_map: str | Mapping[str, Any] | None = None,
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
        tokenizer, dtype, device, device_map, plugins, trust_remote_code: as for ``Engine``; several
            processes take no ``device_map``.
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
    folder = Path(out).expanduser()
    return _Training(
        trainer=trainer,
        options=dict(options or {}),
        settings=make_settings(settings),
        reporter=reporter_of(progress),
        data=[data] if isinstance(data, (str, Path)) else list(data),
        out=folder,
        work=folder.parent / f"{folder.name}.work" if work is None else Path(work).expanduser(),
        command=command,
    ).run(
        model,
        answers,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        device_map=device_map,
        plugins=plugins,
        trust_remote_code=trust_remote_code,
    )


@dataclass
class _Training:
    """One call of :func:`train`, whose arguments these are.

    Raises:
        OptionError: a folder that cannot be written to or worked in.
    """

    trainer: str
    options: Mapping[str, Any]
    settings: Settings
    reporter: Reporter
    data: Sequence[str | Path]
    out: Path
    work: Path
    command: str

    def __post_init__(self) -> None:
        check_out(self.out)
        if self.work.resolve().is_relative_to(self.out.resolve()):
            raise OptionError(
                f"work {self.work} is in out {self.out}: what is worked with is no part of the "
                "checkpoint; give another folder to one of them"
            )
        if self.work.exists() and not self.work.is_dir():
            raise OptionError(f"{self.work} is a file: give a folder to work in (--work)")

    def run(self, model: Any, answers: AnswerOptions | None, **loading: Any) -> Summary:
        """All stages, one after the other."""
        accelerator = processes(loading.get("device"), self.settings.accumulate)
        if accelerator.num_processes > 1:
            if loading["device_map"] is not None:
                raise OptionError(
                    f"device_map={loading['device_map']!r:.80}: each of the "
                    f"{accelerator.num_processes} processes has the model on a device of its own; "
                    "leave it out, or train in one process"
                )
            loading["device"] = accelerator.device
        if not accelerator.is_main_process:
            self.reporter = Reporter()
        self._settle_optimizer()
        engine = Engine(model, strategy="plain", **loading)
        trainer = engine.registry.trainer(self.trainer)
        options = engine.registry.options("trainer", trainer, self.options)
        self._check_start(options)
        own = self._identity(engine, options, answers, accelerator.num_processes)
        check_out(self.out, own)
        stages = Stages(engine, accelerator, self.settings, self.work, self.reporter)
        if answers is not None:
            rows = stages.answers(self.data, trainer, options, answers)
        else:
            rows = read_rows(self.data)
        documents = stages.documents(rows)
        used, trained, held_out = _divided(documents, self.settings)
        with torch.no_grad():
            recipe: Recipe = trainer.factory(options, engine.target, used.only(trained))
        start = check_network(recipe, options, self.settings.seed)
        made_from = {**own["made_from"], "documents": used.fingerprint, "start": start}
        values = effective_options(options.model_dump(mode="json", exclude={"start"}), recipe)
        own = {**own, "options": values, "made_from": made_from}
        check_out(self.out, own)
        features = stages.features(used, recipe)
        run = self._make_run(stages, recipe, options, start, features, trained, held_out)
        with writing_alone(run.folder, accelerator):
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
            seconds=stages.seconds,
            out=self.out,
            work=self.work,
        )
        if ended != "interrupted":
            self._publish(summary, run.best, own, accelerator)
        return summary

    def _make_run(
        self,
        stages: Stages,
        recipe: Recipe,
        options: BaseModel,
        start: str | None,
        features: HiddenStateStore,
        trained: Sequence[int],
        held_out: Sequence[int],
    ) -> Run:
        """The training itself, which is not begun yet."""
        engine, accelerator = stages.engine, stages.accelerator
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
        self, summary: Summary, best: Path, own: Mapping[str, Any], accelerator: Accelerator
    ) -> None:
        """Write the checkpoint, unless another run has written the folder meanwhile.

        Raises:
            OptionError: it has, in every process.
        """
        refused = ""
        if accelerator.is_main_process:
            try:
                check_out(self.out, own)
                publish(summary, best)
            except OptionError as error:
                refused = (
                    f"{error}. With another --out and --work {self.work} this run ends at once"
                )
        (told,) = agreed(accelerator, [refused])
        if told:
            raise OptionError(told)

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


def _divided(documents: Documents, settings: Settings) -> tuple[Documents, list[int], list[int]]:
    """The documents that are read, and the numbers of those that train and of those held out."""
    trained, held_out = split(documents, settings)
    if settings.documents is None:
        return documents, trained, held_out
    order = sorted([*trained, *held_out])  # no hidden states of what is not read
    number = {document: index for index, document in enumerate(order)}
    return documents.only(order), [number[d] for d in trained], [number[d] for d in held_out]
