"""Hypothesis strategies: tables, prompts, settings and whole cases. They shrink to small ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from specdec.testing.cases import Case, Zigzag
from specdec.testing.hypothesis_import import st
from specdec.testing.tables import LARGEST, Table
from specdec.testing.tiny_models import CONFIGS, VOCAB
from specdec.testing.toy_tokenizer import toy_text

# Vocabularies past what one, five and sixteen bits hold; most of the cases have a few tokens.
WIDE, WIDEST = 300, 66_000
_WRITTEN = 8

# Distributions of every kind: even, skewed, nearly tied, with zeros, one-hot, with tiny tails.
_WEIGHTS = st.sampled_from([1.0, 2.0, 5.0, 0.0, 3.0, 1.0 + 1e-9, 20.0, 1e-6])


def tables(size: int) -> st.SearchStrategy[Table]:
    """Tables over ``size`` tokens: zeros, one-hots, near-ties, with and without memory."""
    distribution = st.lists(_WEIGHTS, min_size=size, max_size=size).map(_positive)
    distributions = st.lists(distribution, min_size=1, max_size=5).map(tuple)
    return st.builds(Table, st.just(size), st.integers(0, 2), distributions)


def _positive(weights: list[float]) -> tuple[float, ...]:
    return tuple(weights) if sum(weights) > 0 else (1.0, *weights[1:])


@st.composite
def prompts(
    draw: Any,
    tokens: Sequence[int] | int,
    rows: int = 3,
    fewest: int = 1,
    lengths: Sequence[int] = range(1, 6),
) -> Any:
    """``fewest`` to ``rows`` prompts, mostly of different lengths, one-token prompts among them.

    Args:
        tokens: what they are made of; a number n for the first n.
        lengths: how long they may be. The first ``_WRITTEN`` tokens are drawn, then they repeat.
    """
    known = range(tokens) if isinstance(tokens, int) else tokens
    if draw(st.sampled_from([False, True, False])):
        known = known[1:]  # prompts without the first token, which padding may look like
    # Hypothesis likes the first best: here and below it is where rows and drafts have most to do.
    counts = sorted(range(fewest, rows + 1), key=lambda count: (count < 2, count))
    count, different = draw(st.sampled_from(counts)), draw(st.sampled_from([True, False]))
    length, unique = st.sampled_from(lengths), different and len(lengths) >= count
    drawn = draw(st.lists(length, min_size=count, max_size=count, unique=unique))
    token, found = st.sampled_from(known), []
    for n in drawn:
        written = draw(st.lists(token, min_size=min(n, _WRITTEN), max_size=min(n, _WRITTEN)))
        found.append(tuple(islice(cycle(written), n)))
    return tuple(found)


@st.composite
def settings(
    draw: Any,
    tokens: Sequence[int],
    max_new: int,
    min_new: int = 1,
    greedy: bool | None = None,
    likely: Sequence[int] = (),
    stopping: bool | None = None,
) -> dict[str, Any]:
    """Arguments of ``generate``: temperature, truncation, penalties, processors, stop rules.

    Args:
        tokens: those that the target may write.
        min_new, max_new: bounds on ``max_new_tokens``.
        greedy: True or False for one kind only.
        likely: those that it may well write, for stop rules; all if there are none.
        stopping: whether something besides their length is to end texts; None for either.
    """
    size, likely = len(tokens), likely or tokens
    cold = draw(st.booleans()) if greedy is None else greedy
    chosen: dict[str, Any] = {"temperature": 0.0 if cold else draw(st.sampled_from([1.0, 0.5, 3]))}
    if not cold:
        optional = {
            "top_k": st.integers(1, size),
            "top_p": st.sampled_from([0.9, 0.5, 0.2]),
            "min_p": st.sampled_from([0.05, 0.3]),
        }
        for name in draw(st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=2)):
            chosen[name] = draw(optional[name])
    if penalty := draw(st.sampled_from([None, 1.5, 0.7])):
        chosen["repetition_penalty"] = penalty
    if strength := draw(st.sampled_from([None, None, 1.0, -3.0])):
        chosen["logits_processor"] = [Zigzag(strength)]
    lengths = range(min_new, max_new + 1)
    roomy = [length for length in reversed(lengths) if length >= 4]
    chosen["max_new_tokens"] = draw(st.sampled_from([*roomy, *lengths]))
    rules: tuple[str, ...] = ()
    if stopping is not False:
        some = [("eos", "stop"), ("stop",), ("eos",)]
        rules = draw(st.sampled_from(some if stopping else [*some, ()]))
    ends = sorted({tokens[0], tokens[-1], likely[0], likely[-1]})
    chosen["eos_token_id"] = [draw(st.sampled_from(ends))] if "eos" in rules else []
    if "eos" in rules and draw(st.sampled_from([True, False])):
        # It depends on the length of the row's own prompt: a processor for each row.
        half = (chosen["max_new_tokens"] + 1) // 2
        chosen["min_new_tokens"] = draw(st.sampled_from(range(half, 0, -1)))
    if "stop" in rules:
        chosen["stop"] = draw(stop_strings(likely))
    return chosen


def stop_strings(tokens: Sequence[int]) -> st.SearchStrategy[list[str]]:
    """One or two stop strings of one to three ``tokens``, which may overlap or hold each other."""
    token = st.sampled_from(tokens)
    length = st.sampled_from([2, 1, 3])  # two tokens are the likeliest: a step may separate them
    written = length.flatmap(lambda n: st.lists(token, min_size=n, max_size=n)).map(toy_text)
    return st.lists(written, min_size=1, max_size=2)


def _likely(table: Table) -> list[int]:
    """Tokens that some distribution of the table gives at least a tenth."""
    return [
        token
        for slot, token in enumerate(table.tokens)
        if any(distribution[slot] >= 0.1 * sum(distribution) for distribution in table.weights)
    ]


@st.composite
def cases(
    draw: Any,
    *,
    sizes: tuple[int, ...] = tuple(range(2, LARGEST + 1)),
    max_new: int = 8,
    min_new: int = 1,
    rows: int = 3,
    fewest: int = 1,
    greedy: bool | None = None,
    noise: bool = False,
    vocabularies: Sequence[int | None] = (None,),
    lengths: Sequence[int] = range(1, 6),
    opened: int | None = None,
    always: bool = True,
    apart: bool = False,
    stopping: bool | None = None,
    small: bool | None = None,
) -> Case:
    """Whole examples; the draft table agrees with the target's, or has nothing to do with it.

    Args:
        sizes: numbers of tokens that have a probability.
        min_new, max_new: bounds on ``max_new_tokens``.
        fewest, rows: bounds on the number of prompts.
        greedy: True or False for one kind of temperature only.
        noise: whether to draw a noise table.
        vocabularies: how many tokens there are; None for those that have a probability.
        lengths: of the prompts.
        opened: after how many positions of the text the distributions are open, at most; None for
            all.
        always: whether they are closed after the others on every case, or on half of them.
        apart: whether the draft is always wrong where the target's next token is certain.
        stopping: whether something besides their length is to end texts; None for either.
        small: whether the policy has its small options; None for either.
    """
    size, vocabulary = draw(st.sampled_from(sizes)), draw(st.sampled_from(vocabularies))
    target = draw(tables(size)).over(vocabulary)
    draft = target if draw(st.integers(0, 5)) == 5 else draw(tables(size)).over(vocabulary)
    own = draw(settings(target.tokens, max_new, min_new, greedy, _likely(target), stopping))
    texts = draw(prompts(target.tokens, rows, fewest, lengths))
    if opened is not None and (always or draw(st.booleans())):
        target, draft = draw(_quiet(target, draft, len(texts[0]) - 1, own, opened, apart))
    tenths = st.lists(st.integers(1, 40), min_size=size, max_size=size).map(tuple)
    return Case(
        target=target,
        draft=draft,
        prompts=texts,
        settings=own,
        seed=draw(st.integers(0, 99)),
        window=draw(st.sampled_from([None, None, 2, 4])),
        noise=tuple(draw(st.lists(tenths, min_size=1, max_size=6))) if noise else (),
        small=draw(st.booleans()) if small is None else small,
    )


@st.composite
def _quiet(
    draw: Any,
    target: Table,
    draft: Table,
    first: int,
    chosen: dict[str, Any],
    opened: int,
    apart: bool,
) -> tuple[Table, Table]:
    """The tables with open distributions at a few positions of the text that begins after
    ``first``."""
    new = chosen["max_new_tokens"]
    # The likeliest are those of the deepest draft tokens: the last new token is never one.
    places = [first + place for place in (*range(new - 2, -1, -1), new - 1) if place >= 0]
    open_ = draw(st.lists(st.sampled_from(places), min_size=1, max_size=opened, unique=True))
    slot = st.integers(0, target.size - 1)
    quiet = tuple(draw(st.lists(slot, min_size=1, max_size=3)))
    others = tuple((one + 1) % target.size for one in quiet)
    wrong = apart or draw(st.sampled_from([False, False, False, True]))
    positions = tuple(sorted(open_))
    return target.opened(positions, quiet), draft.opened(positions, others if wrong else quiet)


@st.composite
def model_cases(draw: Any, max_new: int = 12, greedy: bool | None = None) -> Case:
    """Examples on small transformers models: one prompt or a ragged batch, greedy or sampled."""
    rows = draw(st.sampled_from([1, 3]))
    cold = draw(st.booleans()) if greedy is None else greedy
    chosen: dict[str, Any] = {"temperature": 0.0 if cold else 1.0, "max_new_tokens": max_new}
    chosen["eos_token_id"] = draw(st.lists(st.integers(0, VOCAB - 1), max_size=5))
    if draw(st.sampled_from([False, False, True])):
        chosen["stop"] = draw(stop_strings(range(VOCAB)))
    nothing = Table(2, 0, ((1.0, 1.0),))
    return Case(
        nothing,
        nothing,
        draw(prompts(VOCAB, rows, rows, range(1, 11))),
        chosen,
        draw(st.integers(0, 99)),
        model=draw(st.sampled_from(list(CONFIGS))),
    )
