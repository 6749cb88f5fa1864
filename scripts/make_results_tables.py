"""Write the tables of docs/results.md from results in docs/benchmarks; --check fails if stale."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import generated

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "docs" / "benchmarks"
RUNS = {0: "2026-11-29-smollm2-t0.json", 1: "2026-11-29-smollm2-t1.json"}  # by temperature
SETS = ("mt_bench", "humaneval", "gsm8k", "alpaca", "sum", "qa")
# Contenders in the order of the table, with their names in the paper.
METHODS = {
    "draft_model": "SpS", "lookup": "PLD", "medusa": "Medusa", "lookahead": "Lookahead",
    "hydra": "Hydra", "static_tree": "EAGLE", "eagle2:published": "EAGLE-2",
    "eagle3:published": "", "suffix": "", "chain": "", "eagle2": "", "eagle3": "", "auto": "",
    "transformers prompt lookup": "", "transformers": "",
}  # fmt: skip
NAMES = {
    "transformers prompt lookup": "transformers' prompt lookup",
    "transformers": "transformers' `generate`",
}


def page() -> str:
    """The whole page."""
    text = PAGE.read_text(encoding="utf-8")
    for temperature, name in RUNS.items():
        report = json.loads((RESULTS / name).read_text(encoding="utf-8"))["reports"][0]
        script = Path(__file__).name
        text = generated.inserted(text, f"temperature {temperature}", script, _table(report))
    return text


def _table(report: dict[str, Any]) -> str:
    """tau and speedup of each method on each prompt set, their means, and their quotient."""
    rows = [*report["by_set"], *report["means"]]
    cells = {(row["strategy"], row["set"]): (row["tau"], row["speedup"]) for row in rows}
    counts = {row["set"]: row["prompts"] for row in report["by_set"]}
    total, least, most = sum(counts.values()), min(counts.values()), max(counts.values())
    each = str(least) if least == most else f"{least} or {most}"
    columns = ["strategy", "in the paper", *SETS, "mean", "step"]
    lines = [columns, ["---"] * len(columns)]
    measured = {strategy for strategy, _ in cells}
    for method, in_paper in METHODS.items():
        if method not in measured:
            continue
        pairs = [cells[method, name] for name in (*SETS, "mean")]
        shown = [f"{tau:.2f} / {speedup:.2f}x" for tau, speedup in pairs]
        step = pairs[-1][0] / pairs[-1][1]
        lines.append([NAMES.get(method, f"`{method}`"), in_paper, *shown, f"{step:.2f}"])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    temperature = report["settings"]["temperature"]
    return f"Temperature {temperature:.0f}, {total} prompts ({each} a set):\n\n{table}"


if __name__ == "__main__":
    sys.exit(generated.main(__doc__, PAGE, page))
