"""Prompt sets: read from JSON lines, made as long as wanted, as token ids."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdec.errors import OptionError
from specdec.request.prompts import encode

if TYPE_CHECKING:
    from specdec.engine import Engine


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one kind, as text.

    Attributes:
        name: of the kind, e.g. the file's.
        texts: none of them empty.
    """

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        set: name of its set.
        index: its place there.
        token_ids: as the model reads it, chat template included.
    """

    set: str
    index: int
    token_ids: tuple[int, ...]


BUILT_IN = PromptSet(
    "built-in",
    (
        "Write a Python function that returns the sum of a list of numbers.",
        "Explain in simple words why the sky is blue.",
        "Tell me a short story about a fox who wants to learn to swim.",
        "A baker sells 12 rolls an hour for 7 hours. How many rolls does she sell?",
        "Give me five ideas for a cheap birthday present.",
        "What is the difference between weather and climate?",
        "Summarize: Bees live in colonies. In winter they gather around the queen, shiver to keep "
        "her warm, and live on the honey that they stored in summer.",
        "Write a polite letter that asks a neighbour to play music less loudly at night.",
    ),
)


def load_sets(path: Path) -> list[PromptSet]:
    """The sets of a folder of ``.jsonl`` files, or of one such file.

    Every line is an object with a field ``prompt``; other fields are left alone. A set is called
    like its file.

    Raises:
        OptionError: a path without such files, a line without a prompt.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise OptionError(f"there is no .jsonl file in {path}: give a folder of them, or one file")
    if not files[0].is_file():
        raise OptionError(f"there is no file or folder {path}: give a .jsonl file or a folder")
    return [PromptSet(file.stem, tuple(_texts(file))) for file in files]


def _texts(file: Path) -> list[str]:
    texts = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["prompt"]
        except (ValueError, TypeError, KeyError) as error:
            raise OptionError(
                f'{file}, line {number}: write {{"prompt": "..."}} on every line ({error!r})'
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise OptionError(f"{file}, line {number}: the prompt must be text, not {text!r}")
        texts.append(text)
    if not texts:
        raise OptionError(f"there is no prompt in {file}")
    return texts


def encode_sets(
    sets: Sequence[PromptSet],
    engine: Engine,
    *,
    max_new_tokens: int,
    count: int | None = None,
    context: int | None = None,
) -> list[Prompt]:
    """The first ``count`` prompts of each set that leave room for ``max_new_tokens``.

    Where the tokenizer has a chat template a prompt is the user's message, else it is continued
    as it stands.

    Args:
        context: make every prompt about this many tokens long: other prompts of its set go before
            it, and what is too long loses its beginning.

    Raises:
        OptionError: a set of which no prompt leaves room.
        PromptError: a model without tokenizer.
    """
    room = engine.target.context_limit - max_new_tokens
    if context is not None and not 0 < context <= room:
        raise OptionError(
            f"context={context} and max_new_tokens={max_new_tokens} do not fit together into the "
            f"model's {engine.target.context_limit} tokens: give a context of 1 to {room}"
        )
    prompts = []
    for one in sets:
        fitting = itertools.islice(_fitting(one, engine, context, room), count)
        found = [Prompt(one.name, index, ids) for index, ids in fitting]
        if not found:
            raise OptionError(
                f"no prompt of the set {one.name!r} leaves room for {max_new_tokens} new tokens "
                f"in the model's {engine.target.context_limit}: give fewer or shorter prompts"
            )
        prompts += found
    return prompts


def _fitting(
    one: PromptSet, engine: Engine, context: int | None, room: int
) -> Iterator[tuple[int, tuple[int, ...]]]:
    for index, text in enumerate(one.texts):
        if context is not None:
            others = itertools.cycle([*one.texts[index + 1 :], *one.texts[: index + 1]])
            text = _lengthened(text, others, engine, context)
        ids = _ids(text, engine)
        if len(ids) <= room:
            yield index, ids


def _ids(text: str, engine: Engine) -> tuple[int, ...]:
    chat = getattr(engine.tokenizer, "chat_template", None)
    prompt: Any = [{"role": "user", "content": text}] if chat else text
    rows = encode(prompt, engine.tokenizer, vocab_size=engine.target.vocab_size, context=1 << 40)
    return tuple(rows.rows[0])


def _lengthened(text: str, others: Iterator[str], engine: Engine, context: int) -> str:
    """``text`` behind as many ``others`` as make it ``context`` tokens long."""
    tokenizer: Any = engine.tokenizer
    around = len(_ids(text, engine))
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    wanted = max(1, context - (around - len(own)))
    while len(own) < wanted:
        text = f"{next(others)}\n\n{text}"
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
    decoded: str = tokenizer.decode(own[-wanted:])
    return decoded
