"""Prompt sets: made as long as wanted, as token ids."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
        texts: what the user says first, none of them empty.
        later: for each of them what the user says after each answer; empty if nothing.
    """

    name: str
    texts: tuple[str, ...]
    later: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        set: name of its set.
        index: its place there.
        token_ids: as the model reads it, chat template included.
        turns: all that the user says, where it is more than once.
    """

    set: str
    index: int
    token_ids: tuple[int, ...]
    turns: tuple[str, ...] = ()


def encode_sets(
    sets: Sequence[PromptSet],
    engine: Engine,
    *,
    max_new_tokens: int,
    count: int | None = None,
    context: int | None = None,
    turns: int | None = None,
) -> list[Prompt]:
    """The first ``count`` prompts of each set that leave room for ``max_new_tokens``.

    Where the tokenizer has a chat template a prompt is the user's message, else it is continued
    as it stands. A prompt of several turns must leave room for as many answers.

    Args:
        turns: the most turns of a prompt; all of them if left out.
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
        fitting = _fitting(one, engine, context, max_new_tokens, turns)
        found = list(itertools.islice(fitting, count))
        if not found:
            raise OptionError(
                f"no prompt of the set {one.name!r} leaves room for {max_new_tokens} new tokens "
                f"in the model's {engine.target.context_limit}: give fewer or shorter prompts"
            )
        prompts += found
    return prompts


def _fitting(
    one: PromptSet, engine: Engine, context: int | None, max_new_tokens: int, turns: int | None
) -> Iterator[Prompt]:
    for index, text in enumerate(one.texts):
        later = one.later[index][: turns and turns - 1] if one.later else ()
        if context is not None:
            others = itertools.cycle([*one.texts[index + 1 :], *one.texts[: index + 1]])
            text = _lengthened(text, others, engine, context)
        said = (text, *later)
        ids = conversation_ids(said[:1], (), engine)
        whole = conversation_ids(said, ("",) * len(later), engine) if later else ids
        if len(whole) + len(said) * max_new_tokens <= engine.target.context_limit:
            yield Prompt(one.name, index, ids, said if later else ())


def conversation_ids(
    said: Sequence[str], answers: Sequence[str], engine: Engine
) -> tuple[int, ...]:
    """What the model reads before it answers ``said[-1]``.

    Where the tokenizer has a chat template these are messages, else texts one below the other.

    Args:
        said: by the user.
        answers: to all of ``said`` but the last.
    """
    prompt: Any
    if getattr(engine.tokenizer, "chat_template", None):
        roles = itertools.cycle(("user", "assistant"))
        texts = itertools.chain.from_iterable(itertools.zip_longest(said, answers))
        prompt = [
            {"role": role, "content": text}
            for role, text in zip(roles, texts, strict=False)
            if text is not None
        ]
    else:
        pairs = zip(said, answers, strict=False)
        prompt = "".join(f"{text}{answer}\n" for text, answer in pairs) + said[-1]
    rows = encode(prompt, engine.tokenizer, vocab_size=engine.target.vocab_size, context=1 << 40)
    return tuple(rows.rows[0])


def _lengthened(text: str, others: Iterator[str], engine: Engine, context: int) -> str:
    """``text`` behind as many ``others`` as make it ``context`` tokens long."""
    tokenizer: Any = engine.tokenizer
    around = len(conversation_ids((text,), (), engine))
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    wanted = max(1, context - (around - len(own)))
    while len(own) < wanted:
        text = f"{next(others)}\n\n{text}"
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
    decoded: str = tokenizer.decode(own[-wanted:])
    return decoded
