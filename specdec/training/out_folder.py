"""The folder of the finished checkpoint: what may be written over, and what may not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from specdec.errors import OptionError

_SUMMARY = "training.json"
# Options and settings that had other names when a summary was written, by those.
_RENAMED = {
    "vocabulary": "draft_vocab_size",
    "entropy_weight": "cross_entropy_weight",
    "rate": "learning_rate",
    "adam_rate": "adam_learning_rate",
    "slots": "max_batch_tokens",
}
# What decides the weights and says nothing by its value, in words.
_OTHERS = {
    "weights": "other weights of the model",
    "documents": "other data",
    "start": "other weights to begin from",
}


def check_out(out: Path, run: Mapping[str, Any] | None = None) -> None:
    """Refuse a folder that something else is in.

    Args:
        run: what decides the weights of the run that is to write it, by the names of
            :class:`~specdec.training.card.Summary`, or as much of it as is known yet: ``trainer``,
            ``model``, ``options``, ``settings``, ``answers``, ``made_from``. What is left out is
            not compared.

    Raises:
        OptionError: a path without a name, a file, a folder that no training has written, or one
            with the finished drafter of another run.
    """
    if out.name in ("", ".."):
        raise OptionError(f"{out} is no name: give the folder to write the checkpoint to by name")
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file: give the folder to write the checkpoint to")
    finished = (out / _SUMMARY).exists()
    if out.is_dir() and any(out.iterdir()) and not finished:
        raise OptionError(
            f"{out} is not empty, and holds nothing that training has written: give another folder"
        )
    if run is None or not finished:
        return
    found = _read_summary(out / _SUMMARY)
    for name in ("trainer", "model"):
        if found.get(name) != run[name]:
            raise OptionError(
                f"{out} has a finished drafter of the {name} {found.get(name)}, not {run[name]}: "
                "give another folder, or remove this one"
            )
    if differences := list(_differences(found, run)):
        further = ""
        if "start" in (found.get("options") or {}):
            further = f". To train that drafter further: -o start={out}, with another --out"
        raise OptionError(
            f"{out} has the finished drafter of another run ({'; '.join(differences)}): give "
            f"another --out, or remove this folder{further}"
        )


def _differences(found: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    """How two runs differ, in words; what one of them does not say is not compared."""
    if "made_from" in run and "made_from" not in found:
        yield "what data it is made of was not written down then"
    for part in ("options", "settings", "answers", "made_from"):
        if part not in run or part not in found:
            continue
        theirs, ours = found[part], run[part]
        if theirs is not None:
            theirs = {_RENAMED.get(name, name): value for name, value in theirs.items()}
        if (theirs is None) != (ours is None):
            yield f"{'with' if theirs else 'without'} --regenerate there, not so here"
            continue
        for name in (name for name in ours or () if name in theirs):
            there, here = theirs[name], ours[name]
            if there != here and part == "made_from" and name in _OTHERS:
                yield _OTHERS[name]
            elif there != here:
                yield f"{name} {_shown(there)} there, {_shown(here)} here"


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


def _read_summary(path: Path) -> dict[str, Any]:
    """What ``training.json`` says; nothing where there is none, or a broken one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
