"""The folder of the finished checkpoint: what may be written over, and what may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specdec.errors import OptionError


def check_out(out: Path, trainer: str | None = None, model: str | None = None) -> None:
    """Refuse a folder that something else is in.

    Args:
        trainer, model: of the run; not compared if left out.

    Raises:
        OptionError: a file, a folder that no training has written, or one with a drafter of another
            trainer or for another model.
    """
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file: give the folder to write the checkpoint to")
    if out.is_dir() and any(out.iterdir()) and not (out / "training.json").exists():
        raise OptionError(
            f"{out} is not empty, and holds nothing that training has written: give another folder"
        )
    if trainer is None or not (out / "training.json").exists():
        return
    found = _read_summary(out / "training.json")
    for name, own in (("trainer", trainer), ("model", model)):
        if found.get(name) != own:
            raise OptionError(
                f"{out} has a finished drafter of the {name} {found.get(name)}, not {own}: give "
                "another folder, or remove this one"
            )


def _read_summary(path: Path) -> dict[str, Any]:
    """What ``training.json`` says; nothing where there is none, or a broken one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
