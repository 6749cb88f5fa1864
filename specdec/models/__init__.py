"""The models that ship inside the package."""

from __future__ import annotations

from pathlib import Path

from specdec.plugins import ModelAlias

_FOLDER = Path(__file__).parent / "chat-7m"

_BFLOAT16 = {"dtype": "bfloat16"}

EMBEDDED = ModelAlias(
    name="chat-7m",
    model=str(_FOLDER / "target"),
    drafters={"eagle": str(_FOLDER / "eagle"), "draft_model": str(_FOLDER / "draft")},
    # On two CPU cores a level of drafting costs a fifth of a plain step and a verification of 9
    # nodes 1.3 plain steps: few levels and a small budget win, and a drafter in bfloat16 saves
    # another twentieth (docs/benchmarks).
    options={
        "eagle2": {"policy": {"depth": 5, "top_k": 2, "budget": 8}, "drafter": _BFLOAT16},
        "static_tree": {"drafter": _BFLOAT16},
        "chain": {"drafter": _BFLOAT16},
    },
    dtype="float32",
    description="the embedded default: a 7M-parameter chat model with an EAGLE head",
)
