"""Hypothesis strategies: tables, prompts, settings and whole cases. They shrink to small ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specdec.errors import SpecdecError
from specdec.testing.cases import Case, Zigzag
from specdec.testing.letters import letters
from specdec.testing.models import CONFIGS, VOCAB
from specdec.testing.tables import LARGEST, Table

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise SpecdecError(
        'specdec.testing needs Hypothesis: pip install "specdec[test]", or pip install hypothesis'
    ) from error

# Laws of every kind: even, skewed, nearly tied, with zeros, one-hot, with tiny tails.
_WEIGHTS = st.sampled_from([1.0, 2.0, 5.0, 0.0, 3.0, 1.0 + 1e-9, 20.0, 1e-6])


def tables(size: int, max_order: int = 2) -> st.SearchStrategy[Table]:
    """Tables over ``size`` tokens: zeros, one-hots, near-ties, with and without memory."""
    law = st.lists(_WEIGHTS, min_size=size, max_size=size).map(_positive)
    laws = st.lists(law, min_size=1, max_size=5).map(tuple)
    return st.builds(Table, st.just(size), st.integers(0, max_order), laws)


def _positive(weights: list[float]) -> tuple[float, ...]:
    return tuple(weights) if sum(weights) > 0 else (1.0, *weights[1:])


@st.composite
def prompts(draw: Any, size: int, rows: int = 3, fewest: int = 1, longest: int = 5) -> Any:
    """``fewest`` to ``rows`` prompts, mostly of different lengths, one-token prompts among them."""
    # Hypothesis likes the first best: here and below it is where rows and drafts have most to do.
    counts = sorted(range(fewest, rows + 1), key=lambda count: (count < 2, count))
    count, different = draw(st.sampled_from(counts)), draw(st.sampled_from([True, False]))
    length = st.integers(1, longest)
    lengths = draw(st.lists(length, min_size=count, max_size=count, unique=different))
    token = st.integers(0, size - 1)
    return tuple(tuple(draw(st.lists(token, min_size=n, max_size=n))) for n in lengths)


@st.composite
def settings(
    draw: Any,
    size: int,
    max_new: int,
    min_new: int = 1,
    greedy: bool | None = None,
    likely: Sequence[int] = (),
) -> dict[str, Any]:
    """Arguments of ``generate``: temperature, truncation, penalties, processors, stop rules.

    Args:
        min_new, max_new: bounds on ``max_new_tokens``.
        greedy: True or False for one kind only.
        likely: tokens that the target may well write, for stop rules; all if there are none.
    """
    likely = likely or range(size)
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
    if penalty := draw(st.sampled_from([None, None, 1.5, 0.7])):
        chosen["repetition_penalty"] = penalty
    if strength := draw(st.sampled_from([None, None, 1.0, -3.0])):
        chosen["logits_processor"] = [Zigzag(strength)]
    lengths = range(min_new, max_new + 1)
    roomy = [length for length in reversed(lengths) if length >= 4]
    chosen["max_new_tokens"] = draw(st.sampled_from([*roomy, *lengths]))
    rules = draw(st.sampled_from([("eos", "stop"), ("stop",), ("eos",), ()]))
    ends = sorted({0, size - 1, likely[0], likely[-1]})
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
    length = st.sampled_from([2, 1, 3])  # two tokens are the likeliest: a step may part them
    written = length.flatmap(lambda n: st.lists(token, min_size=n, max_size=n)).map(letters)
    return st.lists(written, min_size=1, max_size=2)


def _likely(table: Table) -> list[int]:
    """Tokens that some law of the table gives at least a tenth."""
    return [
        token
        for token in range(table.size)
        if any(law[token] >= 0.1 * sum(law) for law in table.weights)
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
) -> Case:
    """Whole examples; the draft table agrees with the target's, or has nothing to do with it.

    Args:
        sizes: vocabularies.
        min_new, max_new: bounds on ``max_new_tokens``.
        fewest, rows: bounds on the number of prompts.
        greedy: True or False for one kind of temperature only.
        noise: whether to draw a noise table.
    """
    size = draw(st.sampled_from(sizes))
    target = draw(tables(size))
    draft = target if draw(st.integers(0, 5)) == 5 else draw(tables(size))
    own = draw(settings(size, max_new, min_new, greedy, _likely(target)))
    tenths = st.lists(st.integers(1, 40), min_size=size, max_size=size).map(tuple)
    return Case(
        target=target,
        draft=draft,
        prompts=draw(prompts(size, rows, fewest)),
        settings=own,
        seed=draw(st.integers(0, 99)),
        window=draw(st.sampled_from([None, None, 2, 4])),
        noise=tuple(draw(st.lists(tenths, min_size=1, max_size=6))) if noise else (),
    )


@st.composite
def model_cases(draw: Any, max_new: int = 12) -> Case:
    """Examples on small transformers models: one prompt or a ragged batch, greedy or sampled."""
    rows = draw(st.sampled_from([1, 3]))
    greedy = draw(st.booleans())
    chosen: dict[str, Any] = {"temperature": 0.0 if greedy else 1.0, "max_new_tokens": max_new}
    chosen["eos_token_id"] = draw(st.lists(st.integers(0, VOCAB - 1), max_size=5))
    if draw(st.sampled_from([False, False, True])):
        chosen["stop"] = draw(stop_strings(range(VOCAB)))
    nothing = Table(2, 0, ((1.0, 1.0),))
    return Case(
        nothing,
        nothing,
        draw(prompts(VOCAB, rows, rows, longest=10)),
        chosen,
        draw(st.integers(0, 99)),
        model=draw(st.sampled_from(list(CONFIGS))),
    )
