"""A trace on the terminal: for each step what was drafted, expected and accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group

from specdec.cli.terminal import table

if TYPE_CHECKING:
    from specdec.tracing.record import Trace

_COLUMNS = ("step", "drafted", "budget", "grown", "depth", "expected", "realised")
_LEGEND = (
    "drafted: no means a step of plain decoding, text one whose draft is from the text itself; "
    "budget: draft tokens verified; grown: levels drafted; depth: the deepest level verified.",
    "expected: 1 for the bonus token and the value of every draft token; realised: tokens "
    "committed. Expected above realised on average: confidences are too high; below: too low.",
)
_NO_VALUES = "expected -: the values of that step's tree are no probabilities."


def steps_as_json(trace: Trace) -> list[dict[str, Any]]:
    """One object a step, without its tree: ``trace.model_dump()`` has that."""
    return [
        {
            "step": number,
            "drafted": step.drafted,
            "from_text": step.from_text,
            "budget": step.budget,
            "levels": step.levels,
            "depth": step.depth,
            "expected": step.expected,
            "realised": len(step.tokens),
        }
        for number, step in enumerate(trace.steps, start=1)
    ]


def steps_as_table(trace: Trace) -> Group:
    """One line a step, and the means below."""
    rows: list[Sequence[Any]] = [
        (
            number,
            "text" if step.from_text else "yes" if step.drafted else "no",
            step.budget,
            step.levels,
            step.depth,
            None if step.expected is None else f"{step.expected:.2f}",
            len(step.tokens),
        )
        for number, step in enumerate(trace.steps, start=1)
    ]
    notes = [*_LEGEND]
    if any(step.expected is None for step in trace.steps):
        notes.append(_NO_VALUES)
    return table(_COLUMNS, rows, notes=[_means(trace), *notes])


def _means(trace: Trace) -> str:
    steps = trace.steps
    if not steps:
        return "no step was run"
    known = [step for step in steps if step.expected is not None]
    drafted = [step for step in steps if step.drafted]
    text = f"{len(steps)} {'step' if len(steps) == 1 else 'steps'}, {len(drafted)} with drafts"
    if told := sum(step.from_text for step in steps):
        text += f" ({told} from the text)"
    text += f"; mean budget {_mean([step.budget for step in steps]):.1f}"
    if known:
        expected = _mean([step.expected or 0.0 for step in known])
        realised = _mean([len(step.tokens) for step in known])
        text += f"; mean expected {expected:.2f}, realised {realised:.2f} tokens a step"
    else:
        text += f"; mean realised {trace.tau:.2f} tokens a step"
    return text


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
