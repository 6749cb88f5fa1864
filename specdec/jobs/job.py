"""A job: from a file of prompts to a file of answers, through any number of kills."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import get_json_schema

from specdec.engine import Engine, check_engine
from specdec.errors import OptionError
from specdec.files.atomic_files import sweep, write_atomically
from specdec.files.locks import locked_file
from specdec.jobs.answer_log import AnswerLog
from specdec.jobs.answering import Answerer, Costs
from specdec.jobs.options import JobOptions, make_job_options
from specdec.jobs.prompt_file import PromptFile
from specdec.jobs.summary import JobSummary
from specdec.models.fingerprints import (
    fingerprint,
    fingerprint_of_files,
    fingerprint_of_model,
    fingerprint_of_tokenizer,
)
from specdec.progress import Reporter, Stage, reporter_of

_LOG = logging.getLogger(__name__)


def run_job(
    engine: Engine,
    prompts: str | Path,
    out: str | Path,
    *,
    progress: bool | Reporter = False,
    **options: Any,
) -> JobSummary:
    """Answer the rows of a file of JSON lines, and write their answers, in the same order.

    A row has a ``prompt`` (text, continued as it stands, or token ids) or ``messages`` of a chat,
    and whichever arguments of :meth:`Engine.generate <specdec.engine.Engine.generate>` are its own:
    ``max_new_tokens``, ``temperature``, ``seed``, ``stop``, ... Its ``id`` goes into the answer.
    A row that cannot be decoded gets an ``error`` with ``type`` and ``message`` instead of a text.

    Each batch is on disk, in the file ``<out>.job``, before the next one begins; ``out`` is written
    when all are there. Called again after a kill, with the same arguments, a job goes on with the
    batch that was cut off, which has the same rows as before. Called after its end it does nothing.

    Example:
        >>> run_job(Engine(), "in.jsonl", "out.jsonl", settings={"max_new_tokens": 64}).tau

    Args:
        engine: what decodes.
        prompts: a file with an object a line.
        out: the file to write.
        progress: whether to show a bar with the time that is left on stderr, or what is told.
        options: fields of :class:`~specdec.jobs.options.JobOptions`.

    Raises:
        UnknownNameError: an option that does not exist.
        OptionError: no engine; a value that is not allowed; a file that cannot be read or written,
            that another job has written, or that another process is writing now; prompts that were
            changed meanwhile; a model that several processes hold.
    """
    check_engine(engine)
    for name, path in (("prompts", prompts), ("out", out)):
        if not isinstance(path, str | Path):
            raise OptionError(
                f"{name} must be the name of a file, not {type(path).__name__} {path!r:.80}: "
                "answer_rows takes rows that are in memory"
            )
    reporter, checked = reporter_of(progress), make_job_options(options)
    rows = checked_files(Path(prompts), Path(out), checked)
    return Job(engine, rows, Path(out), checked, reporter).run()


def checked_files(prompts: Path, out: Path, options: JobOptions) -> PromptFile:
    """The file of prompts of a job, once both files are checked, which takes no model.

    Raises:
        OptionError: prompts that cannot be read or are none; a folder, or a file that is there and
            no job has written.
    """
    if out.is_dir():
        raise OptionError(f"{out} is a folder: give the file to write to")
    if out.exists() and not _log_of(out).exists():
        same = prompts.exists() and out.samefile(prompts)
        what = "is the file of prompts" if same else "is there, and not from a job"
        raise OptionError(f"{out} {what}: give another file to write to")
    return PromptFile(prompts, options.seed, options.window)


def _log_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.job")


class Job:
    """One run of a job; arguments as for :func:`run_job`, the files checked."""

    def __init__(
        self,
        engine: Engine,
        prompts: PromptFile,
        out: Path,
        options: JobOptions,
        reporter: Reporter,
    ) -> None:
        self.out, self._engine, self._options, self._reporter = out, engine, options, reporter
        self._log_path, self._prompts = _log_of(out), prompts
        if (ranks := engine.generation_setup().ranks) is not None:
            raise OptionError(
                f"the {ranks.size} processes that hold this model would all write {out}: a job is "
                "for a model in one process. Call Engine.generate(prompts, batch_size=...)"
            )
        self._answerer = Answerer(engine, options)

    def run(self) -> JobSummary:
        """Answer what is not answered yet, then write the file."""
        with locked_file(self._log_path):
            log = AnswerLog(self._log_path, self._about(), self._prompts.rows)
            if log.finished and self.out.exists():
                return JobSummary(**log.finished)
            if log.finished:  # the answers were removed
                log.begin_anew()
            resumed = log.answered
            self._answer(log)
            for path in (self.out, self._log_path):
                sweep(path)
            write_atomically(self.out, lambda fresh: _write(fresh, log.lines()))
            summary = self._summary(log.costs, resumed)
            log.finish(asdict(summary))
            _LOG.info("%s: %d rows, %d errors", self.out, summary.rows, summary.errors)
            if self._prompts.changed:
                raise OptionError(
                    f"{self._prompts.path} was changed while the job ran: {self.out} has the "
                    f"answers to the {summary.rows} rows that it had. Give what is new a file "
                    "of its own"
                )
            return summary

    def _about(self) -> dict[str, Any]:
        """What the answers depend on."""
        engine = self._engine
        return {
            "rows": self._prompts.rows,
            "prompts": self._prompts.fingerprint,
            "model": engine.model_name,
            "weights": fingerprint_of_model(engine.target.model),
            "dtype": str(engine.target.dtype).removeprefix("torch."),
            "device": engine.target.device.type,
            "attention": engine.target.model.config._attn_implementation,
            "pack": engine.acceleration.pack,
            "compile": engine.acceleration.compile,
            "target": type(engine.target).__name__,  # another one where a plugin has wrapped it
            "strategy": engine.strategy.name,
            "parts": dict(engine.selection.names),
            "part options": {
                role: {name: _in_words(value) for name, value in options.items()}
                for role, options in engine.selection.options.items()
            },
            "generation config": engine.generation_config.to_diff_dict(),
            "chat template": fingerprint(getattr(engine.tokenizer, "chat_template", None)),
            "tokenizer": fingerprint_of_tokenizer(engine.tokenizer),
            **self._options.model_dump(),
            "settings": _with_schemas(self._options.settings),
        }

    def _answer(self, log: AnswerLog) -> None:
        """Answer the rows that have no answer."""
        rows = self._prompts.rows
        if log.answered:
            self._reporter.note(f"{log.answered:,} of {rows:,} rows were answered before")
            _LOG.info("%s: %d of %d rows were answered before", self.out, log.answered, rows)
        with self._reporter.stage("rows", rows) as stage:
            stage.skip_to(log.answered)
            for number, window in enumerate(self._prompts.windows()):
                if not log.has(index for index, _, _ in window):
                    self._answer_window(number, window, log, stage)

    def _answer_window(
        self, number: int, window: list[tuple[int, int, bytes]], log: AnswerLog, stage: Stage
    ) -> None:
        """Answer the batches of a window that have no answers."""
        batches = self._answerer.batches(self._prompts.parse(*row) for row in window)
        _LOG.debug("%s: %d batches in window %d", self.out, len(batches), number)
        for batch in batches:
            if not log.has(batch.indices):
                answers, costs = self._answerer.answer(
                    batch, lambda rows: stage.advance(rows, _told(log.costs))
                )
                log.add(number, answers, costs)
                stage.at(log.answered, _told(log.costs))

    def _summary(self, costs: Costs, resumed: int) -> JobSummary:
        engine = self._engine
        return JobSummary(
            out=str(self.out),
            rows=self._prompts.rows,
            errors=costs.errors,
            resumed=resumed,
            endings=dict(sorted(costs.endings.items())),
            prompt_tokens=costs.prompt_tokens,
            new_tokens=costs.new_tokens,
            tau=costs.new_tokens / costs.target_forwards if costs.target_forwards else 0.0,
            seconds=costs.seconds,
            tokens_per_second=costs.new_tokens / costs.seconds if costs.seconds else 0.0,
            model=engine.model_name,
            strategy=engine.strategy.name,
            lossless=engine.parts.acceptor.lossless,
        )


def _in_words(value: Any) -> Any:
    """An option's value; of a checkpoint what is in it, wherever it lies."""
    if isinstance(value, nn.Module):
        return fingerprint_of_model(value)
    if isinstance(value, str | Path) and (folder := Path(value)).is_dir():
        return fingerprint_of_files(folder)
    return value


def _with_schemas(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with what a chat template makes of functions among the tools."""
    found = dict(settings)
    if tools := found.get("tools"):
        found["tools"] = [_schema(each) if inspect.isroutine(each) else each for each in tools]
    return found


def _schema(tool: Any) -> Any:
    """The function itself if none can be made of it, as the template will say."""
    try:
        return get_json_schema(tool)
    except Exception:
        return tool


def _told(costs: Costs) -> str:
    """How it goes, beside the bar."""
    speed = f"{costs.new_tokens / costs.seconds:,.0f} tokens/s" if costs.seconds else ""
    errors = f"{costs.errors:,} error{'s' * (costs.errors != 1)}" if costs.errors else ""
    return ", ".join(filter(None, (speed, errors)))


def _write(path: Path, lines: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(lines)
