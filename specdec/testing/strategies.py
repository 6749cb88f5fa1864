"""Hypothesis strategies: tables, prompts, settings and whole cases. They shrink to small ones."""

from __future__ import annotations

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


def prompts(size: int, rows: int = 3, fewest: int = 1, longest: int = 5) -> st.SearchStrategy[Any]:
    """``fewest`` to ``rows`` prompts of different lengths, one-token prompts among them."""
    prompt = st.lists(st.integers(0, size - 1), min_size=1, max_size=longest).map(tuple)
    return st.lists(prompt, min_size=fewest, max_size=rows).map(tuple)


@st.composite
def settings(
    draw: Any, size: int, max_new: int, min_new: int = 1, greedy: bool | None = None
) -> dict[str, Any]:
    """Arguments of ``generate``: temperature, truncation, penalties, a processor, stop rules.

    Args:
        min_new, max_new: bounds on ``max_new_tokens``.
        greedy: True or False for one kind only.
    """
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
    # Hypothesis likes the first best: it is to be a text with room for drafts.
    lengths = sorted(range(min_new, max_new + 1), key=lambda length: (length < 4, length))
    chosen["max_new_tokens"] = draw(st.sampled_from(lengths))
    chosen["eos_token_id"] = draw(st.sampled_from([[], [0], [size - 1]]))
    if draw(st.sampled_from([False, False, True])):
        chosen["stop"] = draw(stop_strings(size))
    return chosen


def stop_strings(size: int) -> st.SearchStrategy[list[str]]:
    """One or two stop strings of one to three tokens, which may overlap or hold each other."""
    written = st.lists(st.integers(0, size - 1), min_size=1, max_size=3).map(letters)
    return st.lists(written, min_size=1, max_size=2)


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
    own = draw(settings(size, max_new, min_new, greedy))
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
        chosen["stop"] = draw(stop_strings(VOCAB))
    nothing = Table(2, 0, ((1.0, 1.0),))
    return Case(
        nothing,
        nothing,
        draw(prompts(VOCAB, rows, rows, longest=10)),
        chosen,
        draw(st.integers(0, 99)),
        model=draw(st.sampled_from(list(CONFIGS))),
    )
