"""Rows of training data, read from files or from a data set of the library ``datasets``."""

from __future__ import annotations

import gzip
import importlib.util
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from specdec.errors import OptionError, first_line
from specdec.files.json_objects import RepeatedNameError, named_once

MANIFEST = "manifest.json"  # of a folder of answers or hidden states; it has no rows
_SUFFIXES = (".jsonl", ".json", ".txt", ".md")
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant"}
_ROWS = (
    "'messages' (a list of role and content), 'prompt' and 'response', 'text', or 'prompt_ids' and "
    "'answer_ids' (token ids of the target model)"
)


@dataclass(frozen=True)
class Row:
    """One example: a dialogue, a plain text, or token ids of a prompt and its answer.

    Attributes:
        messages: of a dialogue, each with ``role`` and ``content``.
        text: of a plain text.
        prompt_ids, answer_ids: token ids; the answer is what the target model wrote after the
            prompt, its end-of-text token included if it ended.
        source, licence: of the text, where the data say so.
        place: of the row, for an error; it does not tell rows apart.
    """

    messages: tuple[Mapping[str, Any], ...] = ()
    text: str = ""
    prompt_ids: tuple[int, ...] = ()
    answer_ids: tuple[int, ...] = ()
    source: str = ""
    licence: str = ""
    place: str = field(default="", compare=False)


def read_rows(sources: Iterable[str | Path]) -> Iterator[Row]:
    """The rows of several sources, in order.

    Args:
        sources: files ``.jsonl`` (an object a line), ``.json`` (a list of objects), ``.txt`` or
            ``.md`` (one text each), any of them with ``.gz``; folders of such files; or names of
            data sets for the library ``datasets``, ``org/name`` or ``org/name:split``.

    Raises:
        OptionError: a source that is not there, a file that is no such file, a row of another kind;
            each with its place.
    """
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            found = sorted(f for f in path.iterdir() if _kind(f) and f.name != MANIFEST)
            if not found:
                raise OptionError(f"the folder {path} has no file of data ({', '.join(_SUFFIXES)})")
            yield from read_rows(found)
        elif path.is_file():
            yield from _read_file(path)
        else:
            yield from _read_data_set(str(source))


def _kind(path: Path) -> str:
    """The suffix that says what a file holds; empty for another kind of file."""
    name = path.name.removesuffix(".gz")
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")


def _read_file(path: Path) -> Iterator[Row]:
    kind = _kind(path)
    if not kind:
        raise OptionError(
            f"{path} is no file of data: its name must end in {', '.join(_SUFFIXES)}, or in one of "
            "them and .gz"
        )
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            if kind in (".txt", ".md"):
                if text := file.read():
                    yield Row(text=text, source=path.name, place=str(path))
                return
            for place, fields in _objects(file, kind, path):
                yield to_row(fields, f"{place} of {path}", path.name)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, json.JSONDecodeError) as error:
        raise OptionError(f"{path} cannot be read: {first_line(error)}") from error


def _objects(file: TextIO, kind: str, path: Path) -> Iterator[tuple[str, Any]]:
    if kind == ".jsonl":
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _parsed(line, f"line {number} of {path}")
        return
    text = file.read()
    try:
        found = json.loads(text, object_pairs_hook=named_once)
    except RepeatedNameError as error:
        raise OptionError(f"{path}: of one object, {error}") from error
    except json.JSONDecodeError as error:
        hint = ": with an object a line its name must end in .jsonl" if _is_lines(text) else ""
        raise OptionError(f"{path} is no JSON ({error}){hint}") from error
    rows = found.get("data", found) if isinstance(found, dict) else found
    for number, fields in enumerate(rows if isinstance(rows, list) else [rows]):
        yield f"entry {number}", fields


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=named_once)
    except RepeatedNameError as error:
        raise OptionError(f"{place}: of one object, {error}") from error
    except json.JSONDecodeError as error:
        raise OptionError(f"{place} is no JSON: {error.msg} at column {error.colno}") from error


def _is_lines(text: str) -> bool:
    """Whether the first line is JSON by itself."""
    try:
        json.loads(text.lstrip().partition("\n")[0])
    except ValueError:
        return False
    return True


def _read_data_set(source: str) -> Iterator[Row]:
    if source.count("/") > 1 or source.startswith((".", "/", "~")) or _kind(Path(source)):
        raise OptionError(f"there is no file or folder {source!r}")
    if importlib.util.find_spec("datasets") is None:
        raise OptionError(
            f"there is no file or folder {source!r}. If it is a data set on the hub: pip install "
            "datasets"
        )
    from datasets import load_dataset

    name, _, split = source.partition(":")
    try:
        for number, fields in enumerate(load_dataset(name, split=split or "train", streaming=True)):
            yield to_row(fields, f"row {number} of {source}", name)
    except OptionError:
        raise
    except Exception as error:
        raise OptionError(f"the data set {source!r} cannot be read: {first_line(error)}") from error


def to_row(fields: Any, place: str, source: str = "") -> Row:
    """A row from the fields of an object.

    Args:
        place: of the row, for an error.
        source: where the row has no ``source`` of its own.

    Raises:
        OptionError: fields of another kind.
    """
    if not isinstance(fields, Mapping):
        raise OptionError(f"{place} is a {type(fields).__name__}: a row is an object with {_ROWS}")
    origin: dict[str, Any] = {
        "source": str(fields.get("source") or source),
        "licence": str(fields.get("licence") or fields.get("license") or ""),
        "place": place,
    }
    if "prompt_ids" in fields and "answer_ids" in fields:
        prompt, answer = (_ids(fields[name], place) for name in ("prompt_ids", "answer_ids"))
        return Row(prompt_ids=prompt, answer_ids=answer, **origin)
    lists = (fields.get(name) for name in ("messages", "conversations"))
    if (turns := next((each for each in lists if each is not None), None)) is not None:
        return Row(messages=_messages(turns, place), **origin)
    text, response = fields.get("text"), fields.get("response")
    alone = response is None and not isinstance(text, str)  # to be answered
    if "prompt" in fields and (alone or isinstance(response, str)):
        given = fields["prompt"]
        if not given:
            return Row(text=response or "", **origin)
        asked = [{"role": "user", "content": given}] if isinstance(given, str) else given
        if alone:
            return Row(messages=_messages(asked, place), **origin)
        said = {"role": "assistant", "content": response}
        return Row(messages=(*_messages(asked, place), said), **origin)
    if isinstance(text, str):
        return Row(text=text, **origin)
    raise OptionError(f"{place} has {', '.join(map(str, fields)) or 'nothing'}: it needs {_ROWS}")


def _messages(turns: Any, place: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise OptionError(f"{place}: messages must be a list, not {type(turns).__name__}")
    if not turns:
        raise OptionError(f"{place}: messages is an empty list")
    return tuple(_message(turn, place) for turn in turns)


def _message(turn: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(turn, Mapping):
        raise OptionError(
            f"{place}: a message is an object with role and content, not {turn!r:.60}"
        )
    role = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        content = "\n".join(str(part.get("text", "")) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise OptionError(f"{place}: a message needs a role and a content, both strings")
    return {"role": _ROLES.get(role, role), "content": content}


def _ids(given: Any, place: str) -> tuple[int, ...]:
    if not isinstance(given, Sequence) or not all(type(each) is int for each in given):
        raise OptionError(f"{place}: prompt_ids and answer_ids are lists of token ids")
    return tuple(given)
