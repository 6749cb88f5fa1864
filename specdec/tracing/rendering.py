"""The page of a trace: one file without a single outside resource."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from specdec.tracing.record import Trace, TracedNode, TracedStep, TracedToken

MOST_COLOURS = 5
"""Steps that accepted this many draft tokens or more share a colour."""


def render(trace: Trace) -> str:
    """The page as HTML.

    What the model or the user wrote is escaped as text, and as JSON inside of the page's data. The
    page's policy lets nothing run but its own script, by its hash, and nothing load.
    """
    script, style = _file("page.js"), _file("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.from_string(_file("page.html")).render(
        trace=trace,
        accepted=sum(len(step.accepted) for step in trace.steps),
        most=MOST_COLOURS,
        data=_data(trace),
        style=style,
        script=script,
        script_hash=f"sha256-{digest}",
    )


def _file(name: str) -> str:
    return (files("specdec.tracing") / "page" / name).read_text(encoding="utf-8")


def _data(trace: Trace) -> dict[str, Any]:
    """What the script reads: of the trace, what the page shows of a step."""
    return {"steps": [_step(step) for step in trace.steps], "seconds": _seconds(trace.seconds)}


def _step(step: TracedStep) -> dict[str, Any]:
    return {
        "root": step.root,
        "nodes": [_node(node) for node in step.nodes],
        "tokens": [_token(token) for token in step.tokens],
        "bonus": step.bonus,
        "budget": step.budget,
        "depth": step.depth,
        "fromText": step.from_text,
        "expected": None if step.expected is None else _rounded(step.expected, 2),
        "seconds": _seconds(step.seconds),
    }


def _node(node: TracedNode) -> dict[str, Any]:
    return {
        "id": node.node,
        "parent": node.parent,
        "token": _name(node.token, node.text),
        "value": _short(node.value),
        "p": _short(node.probability),
        "outcome": node.outcome.value,
    }


def _token(token: TracedToken) -> dict[str, Any]:
    return {"token": _name(token.token, token.name), "p": _short(token.probability)}


def _name(token: int, text: str | None) -> str:
    """A token as the page writes it: by its number where there is no text."""
    return f"#{token}" if text is None else text


def _short(value: float) -> float | None:
    """Three digits; None for what JSON has no number for."""
    return float(f"{value:.3g}") if math.isfinite(value) else None


def _rounded(value: float, places: int) -> float | None:
    return round(value, places) if math.isfinite(value) else None


def _seconds(seconds: dict[str, float]) -> dict[str, float | None]:
    return {phase: _rounded(value, 6) for phase, value in seconds.items() if phase != "total"}
