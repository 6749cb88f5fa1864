"""The models that ship inside the package."""

from __future__ import annotations

from pathlib import Path

from specdec.plugins import ModelAlias

_FOLDER = Path(__file__).parent / "chat-7m"

EMBEDDED = ModelAlias(
    name="chat-7m",
    model=str(_FOLDER / "target"),
    drafters={"eagle": str(_FOLDER / "eagle"), "draft_model": str(_FOLDER / "draft")},
    # A 7M-parameter target verifies about 20 tokens for the price of one on a CPU, and a level of
    # drafting costs a fifth of a verification: few levels and a small budget win.
    options={"eagle2": {"policy": {"depth": 5, "top_k": 4, "budget": 16}}},
    dtype="float32",
    description="the embedded default: a 7M-parameter chat model with an EAGLE head",
)
