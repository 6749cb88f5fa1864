"""What a target forward takes: as it is, with packed weights, compiled.

    python benchmarks/forwards.py --inflate 240m --dtype bfloat16 --threads 2 --rows 1 9 17
    python benchmarks/forwards.py --model smollm2 --threads 1 --clock cpu --ways "as it is" packed

The lm_head is included. The ways run in turns, every other time backwards; medians. Compiling is
not counted, and its seconds are printed beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from specdec import Engine
from specdec.acceleration import Acceleration
from specdec.bench.inflate import inflate
from specdec.bench.presets import PRESETS
from specdec.models.hf_target import HFTarget
from specdec.plugin.embedded_model import EMBEDDED

WAYS = {
    "as it is": {},
    "packed": {"pack": True},
    "compiled": {"compile": True, "compile_after": 1},
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def forward(target: HFTarget, rows: int, context: int) -> Callable[[], object]:
    """A forward over a chain of ``rows`` tokens after ``context`` committed ones."""
    cache = target.new_cache(1, context + rows)
    cache.truncate(torch.tensor([context], device=target.device), context)
    order = torch.arange(rows, device=target.device)
    tokens, positions = torch.ones_like(order)[None], (context + order)[None]
    tree_mask = (order <= order[:, None])[None]
    return lambda: target.logits(target.forward(tokens, positions, tree_mask, cache).last)


def seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Of one call."""
    started = clock()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=EMBEDDED.name)
    parser.add_argument("--inflate", choices=tuple(PRESETS), help="a larger shape")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--context", type=int, default=200, help="tokens before")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 9, 17], help="tokens verified")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: one thread")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.clock == "cpu" and given.threads != 1:
        parser.error("--clock cpu adds up the seconds of all threads: give --threads 1")
    clock = CLOCKS[given.clock]
    torch.set_num_threads(given.threads)
    model = Engine(given.model, strategy="plain", dtype=given.dtype).target.model
    if given.inflate:
        model = inflate(model, PRESETS[given.inflate])
    targets = {
        way: HFTarget(model, acceleration=Acceleration(**WAYS[way]))  # type: ignore[arg-type]
        for way in given.ways
    }
    results = []
    for rows in given.rows:
        runs = {way: forward(target, rows, given.context) for way, target in targets.items()}
        first = {way: seconds(run, clock) for way, run in runs.items()}
        taken: dict[str, list[float]] = {way: [] for way in runs}
        order = list(runs)
        for _ in range(given.repetitions):
            for way in order:
                taken[way].append(seconds(runs[way], clock))
            order.reverse()
        medians = {way: statistics.median(each) for way, each in taken.items()}
        results.append({"rows": rows, "seconds": medians, "first": first})
        shown = ", ".join(f"{way} {1000 * each:.1f} ms" for way, each in medians.items())
        print(f"{rows} rows: {shown}; first call of each {list(map(round, first.values()))} s")
    if given.json:
        given.json.write_text(json.dumps({**vars(given), "json": None, "results": results}) + "\n")


if __name__ == "__main__":
    main()
