"""What a run leaves behind: the checkpoint, a card, figures as JSON and curves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from specdec.bench.machine import machine, versions
from specdec.bench.peak_memory import PeakMemory
from specdec.files.atomic_files import replace_folder
from specdec.training.curves import can_draw, draw
from specdec.training.documents import Documents
from specdec.training.loop import Ended, Run
from specdec.training.optimizers import usual_rate
from specdec.training.recipe import Recipe
from specdec.training.settings import DEFAULT_EPOCHS, Settings


@dataclass(frozen=True)
class Summary:
    """Figures of a run; ``training.json`` of the checkpoint's folder.

    Attributes:
        trainer, model, options, settings, command: what was run, defaults filled in.
        ended: ``"finished"``, ``"early"`` (agreement no longer rose) or ``"interrupted"``.
        out, work: its folders.
        data: documents by source and licence.
        documents: trained, held out and left out.
        parameters: that were trained.
        steps, tokens: of training.
        best_step: the step that the checkpoint is of.
        agreement: on held-out documents, by depth, at that step.
        tau: of the checkpoint; None if it was not measured.
        seconds: by stage.
        tokens_per_second: of training.
        peak_memory: bytes, of this process; pages of the hidden states' files count.
        history: losses, agreement and tau by step.
        machine, versions, date: where the figures come from.
        answers: options of the answers that the model wrote; None without.
        made_from: what decides the weights beside those: fingerprints of the model's weights, of
            the documents and of the network that was begun from (None: a new one), and how many
            processes trained.
        strategy: that decodes with the checkpoint; None if it is of no strategy.
        main: whether this is the process that tells, of several.
    """

    trainer: str
    model: str
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    command: str
    ended: Ended
    out: str
    work: str
    data: Sequence[Mapping[str, Any]]
    documents: Mapping[str, Any]
    parameters: int
    steps: int
    tokens: int
    best_step: int
    agreement: Sequence[float]
    tau: float | None
    seconds: Mapping[str, float]
    tokens_per_second: float
    peak_memory: int
    history: Sequence[Mapping[str, Any]]
    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    date: str
    answers: Mapping[str, Any] | None = None
    made_from: Mapping[str, Any] = field(default_factory=dict)
    strategy: str | None = None
    main: bool = True


def summarize(
    run: Run,
    ended: Ended,
    documents: Documents,
    *,
    trainer: str,
    model: str,
    options: Mapping[str, Any],
    command: str,
    answers: Mapping[str, Any] | None = None,
    made_from: Mapping[str, Any],
    strategy: str | None = None,
    seconds: Mapping[str, float],
    out: Path,
    work: Path,
) -> Summary:
    """The figures of a run that has ended."""
    progress, device = run.progress, run.device
    measured = [entry for entry in progress.history if "agreement" in entry]
    best = [entry for entry in measured if entry["step"] == progress.best_step]
    data = [
        {"source": source, "licence": licence, "documents": count}
        for (source, licence), count in sorted(documents.sources.items())
    ]
    return Summary(
        trainer=trainer,
        model=model,
        options=effective_options(options, run.recipe),
        settings=effective_settings(run.settings, run.precision),
        answers=answers,
        made_from=made_from,
        strategy=strategy,
        command=command,
        ended=ended,
        out=str(out),
        work=str(work),
        data=data,
        documents={
            "trained": len(run.batches.documents),
            "held_out": len(run.held_out.documents),
            "left_out": dict(documents.left_out),
            "tokens": sum(documents.lengths),
            "answer_tokens": int(documents.answer.sum()),
        },
        parameters=sum(p.numel() for p in run.network.parameters() if p.requires_grad),
        steps=progress.step,
        tokens=progress.tokens,
        best_step=progress.best_step,
        agreement=best[0]["agreement"] if best else [],
        tau=best[0].get("tau") if best else None,
        seconds={**seconds, "training": round(progress.seconds, 1)},
        tokens_per_second=round(
            progress.tokens / max(1e-9, progress.seconds - progress.measuring), 1
        ),
        peak_memory=PeakMemory(device).read(),
        history=progress.history,
        machine=machine(device),
        versions=versions(),
        main=run.accelerator.is_main_process,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def effective_options(given: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """A trainer's options, with what was left out as the recipe has chosen it."""
    return {
        name: recipe.chosen.get(name) if value is None else value for name, value in given.items()
    }


def effective_settings(settings: Settings, precision: torch.dtype) -> dict[str, Any]:
    """The settings, with what was left out as it turns out."""
    found = settings.model_dump(mode="json")
    if not (settings.steps or settings.minutes or settings.epochs):
        found["epochs"] = float(DEFAULT_EPOCHS)
    shown = str(precision).removeprefix("torch.")
    return {**found, "learning_rate": usual_rate(settings), "precision": shown}


def publish(summary: Summary, best: Path) -> None:
    """Put the best checkpoint of a run into its folder, whole, with ``README.md``,
    ``training.json`` and, where matplotlib is there, ``curves.png``."""

    def write(folder: Path) -> None:
        shutil.copytree(best, folder, dirs_exist_ok=True)
        text = json.dumps(asdict(summary), indent=2, ensure_ascii=False) + "\n"
        (folder / "training.json").write_text(text, encoding="utf-8")
        if can_draw():
            draw(summary.history, folder / "curves.png")
        card = _card(summary, curves=(folder / "curves.png").exists())
        (folder / "README.md").write_text(card, encoding="utf-8")

    replace_folder(Path(summary.out), write)


def _card(summary: Summary, *, curves: bool) -> str:
    """The card, in Markdown."""
    documents = summary.documents
    figures = [
        ("parameters", f"{summary.parameters:,}"),
        ("documents", f"{documents['trained']:,} trained on, {documents['held_out']:,} held out"),
        ("steps", f"{summary.steps:,} ({summary.ended}); the checkpoint is of {summary.best_step}"),
        ("tokens", f"{summary.tokens:,}, at {summary.tokens_per_second:,.0f} a second"),
        *((f"seconds: {stage}", f"{each:,.0f}") for stage, each in summary.seconds.items()),
        ("held-out agreement by depth", " ".join(f"{each:.3f}" for each in summary.agreement)),
        ("tau on held-out prompts, T = 0", "-" if summary.tau is None else f"{summary.tau:.2f}"),
        ("peak memory", f"{summary.peak_memory / 1e9:.1f} GB"),
        ("machine", f"{summary.machine['gpu'] or summary.machine['processor']}"),
    ]
    data = [
        (e["source"] or "-", e["licence"] or "not stated", e["documents"]) for e in summary.data
    ]
    left_out = "".join(f"\nLeft out: {n} ({why}).\n" for why, n in documents["left_out"].items())
    given = [
        *summary.options.items(),
        *summary.settings.items(),
        *((f"answers: {name}", each) for name, each in (summary.answers or {}).items()),
    ]
    use = f", as `--drafter` of `--strategy {summary.strategy}`" if summary.strategy else ""
    return "\n".join(
        [
            f"# A drafter for {summary.model}\n",
            f"Made by specdec {summary.versions['specdec']} with the trainer `{summary.trainer}`, "
            f"{summary.date[:10]}. It works with this model alone{use}.\n",
            *(["```sh", summary.command, "```\n"] if summary.command else []),
            "## Figures\n",
            _table(("", ""), figures),
            "Agreement is the share of held-out answer tokens at which the likeliest draft token "
            "is the target's likeliest, measured along the text. Tau is tokens per target "
            "forward. Peak memory is that of the process, or what torch had allocated on the GPU; "
            "pages of the hidden states' files count.\n",
            *(["![curves](curves.png)\n"] if curves else []),
            "## Data\n",
            _table(("source", "licence", "documents"), data) + left_out,
            "## Options and settings\n",
            _table(("", ""), [(name, value) for name, value in given if value is not None]),
            "All figures, by step, are in `training.json`.\n",
        ]
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
