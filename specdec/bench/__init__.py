"""Measuring strategies: models of any size without downloads, and runs side by side.

from specdec import Engine, bench

engine = Engine(strategy="eagle2")
report = bench.run({"eagle2": engine, "chain": engine.with_strategy("chain")})
print(report.of("eagle2").speedup)
"""

from __future__ import annotations

from specdec.bench.benchmark import run
from specdec.bench.benchmark_report import Difference, Ratio, Report, Result
from specdec.bench.contenders import Contender, Decoded
from specdec.bench.prompt_files import load_sets
from specdec.bench.prompt_sets import Prompt, PromptSet, encode_sets
from specdec.bench.settings import Settings
from specdec.bench.several_settings import run_at

__all__ = [
    "Contender",
    "Decoded",
    "Difference",
    "Prompt",
    "PromptSet",
    "Ratio",
    "Report",
    "Result",
    "Settings",
    "encode_sets",
    "load_sets",
    "run",
    "run_at",
]
