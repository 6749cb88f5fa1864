"""Prompt sets in files: lines with a prompt, and the published question files with their turns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from specdec.bench.prompt_sets import PromptSet
from specdec.errors import OptionError
from specdec.files.json_objects import RepeatedNameError, named_once

MT_BENCH = "mt_bench"
_OF_MT_BENCH = frozenset(
    ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
)
_QUESTIONS = "question"  # a file of this name says nothing: its folder's name does
_EXPECTED = 'write {"prompt": "..."} or {"turns": ["..."]} on every line'


def load_sets(path: Path) -> list[PromptSet]:
    """The prompt sets of a ``.jsonl`` file, of a folder of them, or of a folder whose folders have
    files ``question.jsonl``, which are read alone.

    A line is an object with a field ``prompt``, or with ``turns``: what the user says first, after
    the first answer, and so on. Other fields are left alone, but for a ``category`` beside turns:
    where a file has several categories, each is a set, and the eight of MT-bench together are the
    set ``mt_bench``, one of each after the other, so that its first prompts are of every kind.
    Other sets are called like their file, or, where that is ``question.jsonl``, like its folder.

    These are the files of EAGLE (``eagle/data/TASK/question.jsonl``) and of Spec-Bench
    (``data/spec_bench/question.jsonl``), as they are.

    Raises:
        OptionError: a path without such files, a line without a prompt, two sets of one name.
    """
    found: dict[str, Path] = {}
    sets = []
    for file in _files(path):
        for one in _sets(file):
            if one.name in found:
                raise OptionError(
                    f"{found[one.name]} and {file} both have prompts of the set {one.name!r}: give "
                    "one of them, or rename a file"
                )
            found[one.name] = file
            sets.append(one)
    return sets


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise OptionError(
                f"there is no file or folder {path}: give a .jsonl file or a folder of them"
            )
        return [path]
    files = sorted(path.glob(f"*/{_QUESTIONS}.jsonl")) or sorted(path.glob("*.jsonl"))
    if not files:
        raise OptionError(
            f"there is no .jsonl file in {path}, and none called {_QUESTIONS}.jsonl in its "
            "folders: give a folder of them, or one file"
        )
    return files


def _sets(file: Path) -> Iterator[PromptSet]:
    """Of one file, in the order of their first lines."""
    rows = list(_rows(file))
    if not rows:
        raise OptionError(f"there is no prompt in {file}")
    categories = [category for _, category in rows]
    if set(categories) >= _OF_MT_BENCH:
        categories = [MT_BENCH if each in _OF_MT_BENCH else each for each in categories]
    name = file.resolve().parent.name if file.stem == _QUESTIONS else file.stem
    one = len(set(categories)) == 1
    for category in dict.fromkeys(categories):
        own = _mixed([row for row, each in zip(rows, categories, strict=True) if each == category])
        later = tuple(turns[1:] for turns in own)
        yield PromptSet(
            name if one or not category else category,
            tuple(turns[0] for turns in own),
            later if any(later) else (),
        )


def _mixed(rows: Sequence[tuple[tuple[str, ...], str]]) -> list[tuple[str, ...]]:
    """Turns of all categories, one of each after the other: the first few are of every kind."""
    by_category: dict[str, list[tuple[str, ...]]] = {}
    for turns, category in rows:
        by_category.setdefault(category, []).append(turns)
    mixed = itertools.chain.from_iterable(itertools.zip_longest(*by_category.values()))
    return [turns for turns in mixed if turns is not None]


def _rows(file: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Turns and category of every line that is not blank."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line, object_pairs_hook=named_once)
            several = "prompt" not in row and "turns" in row
            turns = row["turns"] if several else [row["prompt"]]
        except RepeatedNameError as error:
            raise OptionError(f"{where}: of one object, {error}") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise OptionError(f"{where}: {_EXPECTED} ({error!r})") from error
        if not isinstance(turns, list) or not turns:
            raise OptionError(f"{where}: turns must be a list of texts, not {turns!r}")
        category = row.get("category") if several else None
        yield tuple(_text(turn, where) for turn in turns), _text_or_none(category, where)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise OptionError(f"{where}: the prompt must be text, not {value!r}")
    return value


def _text_or_none(value: Any, where: str) -> str:
    if not isinstance(value, str | None):
        raise OptionError(f"{where}: the category must be text, not {value!r}")
    return value or ""
