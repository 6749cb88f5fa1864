"""The embedded model: the alias of the one that ships inside the package."""

from __future__ import annotations

from pathlib import Path

from specdec.plugin.components import ModelAlias

_FOLDER = Path(__file__).parent.parent / "models" / "chat-7m"

_BFLOAT16 = {"dtype": "bfloat16"}

EMBEDDED = ModelAlias(
    name="chat-7m",
    model=str(_FOLDER / "target"),
    drafters={"eagle": str(_FOLDER / "eagle"), "draft_model": str(_FOLDER / "draft")},
    options={name: {"drafter": _BFLOAT16} for name in ("auto", "eagle2", "static_tree", "chain")},
    # On a CPU neither drafting nor a wide verification is free beside so small a target: few levels
    # and a small budget win (docs/benchmarks).
    cpu_options={"eagle2": {"policy": {"depth": 5, "top_k": 2, "budget": 8}}},
    dtype="float32",
    description="the embedded default: a 7M-parameter chat model with an EAGLE head",
)
