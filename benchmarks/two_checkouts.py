"""Is this checkout slower than another one? Both decode the same prompts in turns.

    git worktree add ../before COMMIT
    python benchmarks/two_checkouts.py --before ../before --data PROMPTS

Each checkout runs in a process of its own on one thread, and they take turns, every other round in
reverse order. Seconds are those that the process was on a processor, prefill included. Printed are
median tokens/s of both, and the median, least and largest ratio over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STRATEGIES = ("plain", "eagle2", "static_tree", "draft_model", "lookup", "auto")
LONGEST = 400  # characters of a prompt


def main() -> None:
    """Read the command line; be one of the two processes, or start both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl prompt sets")
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--prompts", type=int, default=1, help="prompts of each set")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--model", default=None, help="alias or folder")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given)
    elif given.before is None:
        parser.error("--before is missing: the checkout to compare with")
    else:
        compare(given)


def work(given: argparse.Namespace) -> None:
    """Decode all prompts with every strategy for each temperature on stdin; print tokens/s."""
    import torch

    from specdec import Engine
    from specdec.bench import load_sets

    torch.set_num_threads(1)
    plain = Engine(given.model, strategy="plain")
    texts = [text for each in load_sets(given.data) for text in each.texts[: given.prompts]]
    prompts = [[{"role": "user", "content": text[:LONGEST]}] for text in texts]
    engines = {
        name: plain if name == "plain" else plain.with_strategy(name) for name in given.strategies
    }
    for engine in engines.values():
        engine.generate(prompts[0], max_new_tokens=24, temperature=0)
    print("ready", flush=True)
    for line in sys.stdin:
        found = {}
        for name, engine in engines.items():
            settings: dict[str, Any] = {"temperature": float(line), "eos_token_id": []}
            tokens, started = 0, time.process_time()
            for seed, prompt in enumerate(prompts):
                result = engine.generate(
                    prompt, max_new_tokens=given.max_new_tokens, seed=seed, **settings
                )
                tokens += len(result.token_ids)  # type: ignore[union-attr]
            found[name] = tokens / (time.process_time() - started)
        print(json.dumps(found), flush=True)


def compare(given: argparse.Namespace) -> None:
    """Let both checkouts take turns; print a table."""
    roots = {"before": given.before.resolve(), "now": Path(__file__).resolve().parent.parent}
    processes = {which: _started(root, given) for which, root in roots.items()}
    print("| strategy | temperature | before | now | now / before | rounds |")
    print("|---|---|---|---|---|---|")
    for temperature in given.temperature:
        rates: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
        for turn in range(given.rounds):
            for which in ("before", "now") if turn % 2 == 0 else ("now", "before"):
                process = processes[which]
                process.stdin.write(f"{temperature}\n")
                process.stdin.flush()
                rates[which].append(json.loads(_line(process)))
        for name in given.strategies:
            old, new = ([found[name] for found in rates[which]] for which in rates)
            ratios = [ours / theirs for theirs, ours in zip(old, new, strict=True)]
            print(
                f"| {name} | {temperature:g} | {statistics.median(old):.1f} "
                f"| {statistics.median(new):.1f} | {statistics.median(ratios):.3f} "
                f"| {min(ratios):.2f} to {max(ratios):.2f} |",
                flush=True,
            )
    for process in processes.values():
        process.stdin.close()


def _started(root: Path, given: argparse.Namespace) -> Any:
    # plugins/ is found as specdec_plugins through the link in .typing.
    path = os.pathsep.join([str(root), str(root / ".typing")])
    command = [sys.executable, __file__, "--worker", "--data", str(given.data.resolve())]
    command += ["--prompts", str(given.prompts), "--max-new-tokens", str(given.max_new_tokens)]
    command += ["--strategies", *given.strategies]
    command += ["--model", given.model] if given.model else []
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while _line(process) != "ready":
        pass
    return process


def _line(process: Any) -> str:
    line = process.stdout.readline()
    if not line:
        sys.exit(f"the process {process.args[1]} ended: see its message above")
    return str(line).strip()


if __name__ == "__main__":
    main()
