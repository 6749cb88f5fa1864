"""Write the tables of README.md and docs/results.md from results in docs/benchmarks; --check fails
if one is stale."""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import generated
import numpy as np

from specdec.bench.benchmark_report import Range
from specdec.bench.bootstrap import Statistic, mean_interval

ROOT = Path(__file__).parent.parent
PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
RESULTS = ROOT / "docs" / "benchmarks"
RUN = "2026-11-29-smollm2-t{}"
DRAFT_MODEL = "2026-11-30-smollm2-draft-model-t{}"  # the same prompts, in a run of its own
COUPLED = "2026-11-30-smollm2-coupled-t{}"  # the same, of coupled drafts, and of auto anew
WORSE_HEADS = RESULTS / "2026-11-30-worse-heads.json"
TEMPERATURES = (0, 1)
SETS = ("mt_bench", "humaneval", "gsm8k", "alpaca", "sum", "qa")
# Contenders in the order of the table, with their names in the paper.
METHODS = {
    "draft_model": "SpS", "lookup": "PLD", "medusa": "Medusa", "lookahead": "Lookahead",
    "hydra": "Hydra", "static_tree": "EAGLE", "eagle2:published": "EAGLE-2",
    "eagle3:published": "", "suffix": "", "chain": "", "eagle2": "", "eagle3": "",
    "static_tree:coupled": "", "eagle2:coupled60": "", "eagle3:coupled60": "",
    "eagle2:coupled": "", "eagle3:coupled": "", "auto": "",
    "transformers prompt lookup": "", "transformers": "",
}  # fmt: skip
NAMES = {
    "static_tree:coupled": "`static_tree`, coupled",
    "eagle2:coupled60": "`eagle2:published`, coupled",
    "eagle3:coupled60": "`eagle3:published`, coupled",
    "eagle2:coupled": "`eagle2`, coupled",
    "eagle3:coupled": "`eagle3`, coupled",
    "transformers prompt lookup": "transformers' prompt lookup",
    "transformers": "transformers' `generate`",
}
# Rows of the README's table.
FIGURES = {
    "`auto`": ("auto",),
    "`eagle2`, `eagle3`, 5 draft tokens": ("eagle2", "eagle3"),
    "the same, [coupled](docs/results.md#coupled-drafts)": ("eagle2:coupled", "eagle3:coupled"),
    "`eagle2`, `eagle3`, the paper's 60 draft tokens": ("eagle2:published", "eagle3:published"),
    "the same, coupled": ("eagle2:coupled60", "eagle3:coupled60"),
    "`static_tree` (EAGLE, 25 draft tokens)": ("static_tree",),
    "`hydra`, `medusa` (63 draft tokens)": ("hydra", "medusa"),
    "`draft_model` (2 layers, 20 minutes of training)": ("draft_model",),
    "`chain`": ("chain",),
    "`lookahead`": ("lookahead",),
    "`lookup`, `suffix`, without a head": ("lookup", "suffix"),
    "transformers' `generate`, its prompt lookup (not packed, unlike the others)": (
        "transformers",
        "transformers prompt lookup",
    ),
}
# Contenders with likeliest tokens, and the same with coupled ones.
COUPLINGS = {
    "static_tree": "static_tree:coupled",
    "eagle2:published": "eagle2:coupled60",
    "eagle3:published": "eagle3:coupled60",
    "eagle2": "eagle2:coupled",
    "eagle3": "eagle3:coupled",
}
EAGLE, EAGLE2 = "static_tree", "eagle2:published"

Cells = dict[tuple[str, str], tuple[float, float]]
Points = Sequence[tuple[float, float]]


def _report(temperature: int, run: str = RUN) -> dict[str, Any]:
    path = RESULTS / f"{run.format(temperature)}.json"
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["reports"][0]
    return report


def _cells(temperature: int) -> Cells:
    """tau and speedup by method and prompt set, and their means."""
    found: Cells = {}
    runs = [DRAFT_MODEL, RUN, *([COUPLED] if temperature else [])]
    for report in (_report(temperature, run) for run in runs):
        for row in (*report["by_set"], *report["means"]):
            found[row["strategy"], row["set"]] = row["tau"], row["speedup"]
    return found


def results_page() -> str:
    """docs/results.md, whole."""
    text, script = PAGE.read_text(encoding="utf-8"), Path(__file__).name
    for temperature in TEMPERATURES:
        table = _by_set(temperature)
        text = generated.inserted(text, f"temperature {temperature}", script, table)
    text = generated.inserted(text, "gain", script, _gains(text))
    text = generated.inserted(text, "coupled", script, _coupled())
    return generated.inserted(text, "worse heads", script, _worse_heads())


def readme() -> str:
    """README.md, whole."""
    cells = [_cells(temperature) for temperature in TEMPERATURES]

    def shown(own: Cells, methods: Sequence[str]) -> str:
        figures = [(method, *own[method, "mean"]) for method in methods if (method, "mean") in own]
        if not figures:
            return "the same"
        return ", ".join(
            f"{speedup:.2f}x"
            if method.startswith("transformers")
            else f"{tau:.2f} / {speedup:.2f}x"
            for method, tau, speedup in figures
        )

    rows = [[name, *(shown(own, methods) for own in cells)] for name, methods in FIGURES.items()]
    head = ["", *(f"temperature {temperature}" for temperature in TEMPERATURES)]
    table = "\n".join(generated.table(head, rows)) + "\n"
    return generated.inserted(
        README.read_text(encoding="utf-8"), "figures", Path(__file__).name, table
    )


def _by_set(temperature: int) -> str:
    """tau and speedup of each method on each prompt set, their means, and their quotient."""
    cells = _cells(temperature)
    counts = {row["set"]: row["prompts"] for row in _report(temperature)["by_set"]}
    total, least, most = sum(counts.values()), min(counts.values()), max(counts.values())
    each = str(least) if least == most else f"{least} or {most}"
    columns = ["strategy", "in the paper", *SETS, "mean", "step"]
    lines = []
    measured = {strategy for strategy, _ in cells}
    for method, in_paper in METHODS.items():
        if method not in measured:
            continue
        pairs = [cells[method, name] for name in (*SETS, "mean")]
        shown = [f"{tau:.2f} / {speedup:.2f}x" for tau, speedup in pairs]
        step = pairs[-1][0] / pairs[-1][1]
        lines.append([NAMES.get(method, f"`{method}`"), in_paper, *shown, f"{step:.2f}"])
    table = "\n".join(generated.table(columns, lines)) + "\n"
    return f"Temperature {temperature}, {total} prompts ({each} a set):\n\n{table}"


def _gains(page: str) -> str:
    """How EAGLE-2's gain over EAGLE goes with EAGLE's tau, in the paper and here."""
    head = ["", "points", "mean gain", "correlation with EAGLE's tau", "gain at EAGLE's tau here"]
    rows = []
    for temperature in TEMPERATURES:
        cells = _cells(temperature)
        here = cells[EAGLE, "mean"][0]
        by_set = [(cells[EAGLE, name][0], cells[EAGLE2, name][0]) for name in SETS]
        for name, points in (
            ("the paper's cells, 7B models", _in_paper(page, temperature)),
            ("here, by prompt set", by_set),
            ("here, by prompt", [*_by_prompt(temperature)]),
        ):
            rows.append([f"temperature {temperature}, {name}", *_figures(points, here)])
    return "\n".join(generated.table(head, rows)) + "\n"


def _coupled() -> str:
    """What coupled drafts gain over likeliest ones, by prompt."""
    likeliest, coupled, cells = _taus(RUN), _taus(COUPLED), _cells(1)
    head = ["tree", "likeliest tokens", "coupled", "gain in tau, by prompt"]
    rows = []
    for method, other in COUPLINGS.items():
        gains = [
            coupled[at][other] / likeliest[at][method] for at in coupled if other in coupled[at]
        ]
        low, high = _interval(np.array(gains))
        pairs = (cells[each, "mean"] for each in (method, other))
        shown = [f"{tau:.2f} / {speedup:.2f}x" for tau, speedup in pairs]
        gain = f"{statistics.mean(gains):.2f} ({low:.2f}-{high:.2f})"
        rows.append([NAMES.get(method, f"`{method}`"), *shown, gain])
    return "\n".join(generated.table(head, rows)) + "\n"


def _interval(gains: Any) -> Range:
    """The 95 % interval of their mean."""
    found = mean_interval([Statistic(len(gains), lambda drawn: gains[drawn].mean(axis=1))])
    assert found is not None
    return found


def _worse_heads() -> str:
    """tau of both trees with the same head and more and more noise in its weights."""
    rows = json.loads(WORSE_HEADS.read_text(encoding="utf-8"))["rows"]
    head = [
        "noise, in standard deviations of each matrix",
        "tau of EAGLE",
        "tau of EAGLE-2",
        "gain",
    ]
    shown = [
        [
            f"{row['noise']:.1f}",
            f"{row['eagle']:.2f}",
            f"{row['eagle2']:.2f}",
            f"{row['gain']:.2f} ± {row['standard_error']:.2f}",
        ]
        for row in rows
    ]
    return "\n".join(generated.table(head, shown)) + "\n"


def _figures(points: Points, here: float) -> list[str]:
    tau = [eagle for eagle, _ in points]
    gain = [eagle2 / eagle for eagle, eagle2 in points]
    line = statistics.linear_regression(tau, gain)
    found = statistics.mean(gain), statistics.correlation(tau, gain)
    return [str(len(points)), *(f"{x:.2f}" for x in (*found, line.slope * here + line.intercept))]


def _in_paper(page: str, temperature: int) -> Points:
    """tau of EAGLE and EAGLE-2 for each model and task of the paper's table on the page."""
    table = page.partition("## What the paper reports")[2].partition(f"Temperature {temperature}:")[
        2
    ]
    found: dict[str, list[float]] = {"EAGLE": [], "EAGLE-2": []}
    for line in table.partition("Temperature")[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and (name := cells[2]) in found:
            found[name] += [float(cell.split(" / ")[0]) for cell in cells[3:9]]
    return list(zip(*found.values(), strict=True))


def _by_prompt(temperature: int) -> Iterator[tuple[float, float]]:
    """tau of EAGLE and EAGLE-2 on each prompt."""
    for taus in _taus(RUN, temperature).values():
        if EAGLE in taus and EAGLE2 in taus:
            yield taus[EAGLE], taus[EAGLE2]


def _taus(run: str, temperature: int = 1) -> dict[int, dict[str, float]]:
    """tau by prompt and method."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    with gzip.open(RESULTS / f"{run.format(temperature)}-runs.jsonl.gz", "rt") as lines:
        next(lines)  # what the run was asked
        for each in map(json.loads, lines):
            taus = {method: _tau(kept["stats"]) for method, kept in each["runs"].items()}
            found[each["batch"]].update(taus)
    return found


def _tau(stats: Sequence[dict[str, Any]]) -> float:
    """Of all turns together."""
    tokens = sum(turn["new_tokens"] for turn in stats)
    return float(tokens / sum(turn["target_forwards"] for turn in stats))


def pages() -> dict[Path, str]:
    """Both pages, whole."""
    return {PAGE: results_page(), README: readme()}


def main() -> int:
    """Write or compare both pages: the exit status."""
    parser = argparse.ArgumentParser(description=re.sub(r"\s+", " ", __doc__ or ""))
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    return max([generated.written(path, fresh, check=check) for path, fresh in pages().items()])


if __name__ == "__main__":
    sys.exit(main())
