"""specdec and its peers side by side: one interleaved run on the same weights and prompts.

    python benchmarks/peers/run.py --data PROMPTS --prompts 5 --max-new-tokens 128 \\
        --dtype bfloat16 --threads 2 --eagle CHECKOUT --eagle-python PY --vllm-python PY \\
        --inflate 240m --json peers.json

PROMPTS is a folder of .jsonl files, one prompt set each, with a field "prompt" on every line.
Every peer is optional; what cannot be started is skipped with a reason. README.md beside this file
says how the environments are made.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import torch
from lineup import BASELINE, Host, lineup
from report import Record, beside, markdown, results
from rich.console import Console
from rich.progress import Progress
from weights import Weights, inflated

from specdec import Engine
from specdec.bench.machine import machine, versions
from specdec.bench.peers.protocol import PeerError, Process
from specdec.bench.presets import PRESETS
from specdec.bench.prompt_files import load_sets
from specdec.bench.prompt_sets import Prompt, encode_sets
from specdec.plugin.embedded_model import EMBEDDED


class Run:
    """The worker processes, and what they have decoded.

    Args:
        common: the part of every job that is the same.
        folder: where logs are written.
    """

    def __init__(self, common: dict[str, Any], folder: Path) -> None:
        self.common, self.folder = common, folder
        self.processes: dict[str, Process] = {}
        self.records: dict[str, Record] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}

    def start(self, host: Host, stack: ExitStack) -> None:
        """Start a worker and let it load, or note why not."""
        reason = host.missing
        if reason is None:
            log = self.folder / f"{len(self.processes)}-{host.script.stem}.log"
            process = Process(host.python, host.script, self.common["threads"], log)
            stack.callback(process.close)
            try:
                facts = process.load({**self.common, **host.job, "modes": host.modes})
            except PeerError as error:
                reason = str(error)
            else:
                for label in host.modes:
                    self.processes[label], self.facts[label] = process, facts
                    self.records[label] = Record()
        if reason is not None:
            self.skipped |= dict.fromkeys(host.modes, reason)

    def turns(self, prompts: Sequence[Prompt], repetitions: int, new_tokens: int) -> None:
        """One prompt of warm-up, then every decoder on every prompt, in an order that rotates."""
        rounds = [(-1, 0), *((r, i) for r in range(repetitions) for i in range(len(prompts)))]
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("decoding", total=len(rounds) * len(self.records))
            for turn, (repetition, index) in enumerate(rounds):
                labels = list(self.records)
                first = turn % len(labels)
                for label in labels[first:] + labels[:first]:
                    bar.update(task, advance=1, description=label)
                    self._decode(label, repetition, index, prompts[index], new_tokens)

    def _decode(
        self, label: str, repetition: int, index: int, prompt: Prompt, new_tokens: int
    ) -> None:
        try:
            decoded = self.processes[label].decode(label, prompt.token_ids, new_tokens)
        except PeerError as error:
            if label == BASELINE:
                sys.exit(f"{label}: {error}")
            self.skipped[label] = f"{prompt.set} {prompt.index}: {error}"
            del self.records[label]
            return
        if repetition >= 0:
            self.records[label].add(repetition, index, decoded)


# What the recorded command says instead of this machine's paths.
_PATHS = {
    "data": "PROMPTS",
    "json": "REPORT",
    "eagle": "CHECKOUT",
    "eagle_python": "PYTHON",
    "vllm_python": "PYTHON",
    "target": "TARGET",
    "head": "HEAD",
    "draft": "DRAFT",
}
_ALWAYS = {"prompts", "max_new_tokens", "repetitions", "dtype", "threads"}


def command_line() -> argparse.ArgumentParser:
    """Its options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of .jsonl prompt sets, or one file")
    add("--prompts", type=int, default=5, help="prompts of each set")
    add("--max-new-tokens", type=int, default=128)
    add("--repetitions", type=int, default=3)
    add("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    add("--threads", type=int, default=torch.get_num_threads())
    add("--target", default=EMBEDDED.model, help="folder of a Llama-type model")
    add("--head", default=EMBEDDED.drafters["eagle"], help="folder of its EAGLE-1/2 head")
    add("--draft", default=EMBEDDED.drafters["draft_model"], help="folder of its draft model")
    add("--inflate", choices=tuple(PRESETS), help="run on the weights inflated to this size")
    add("--depth", type=int, default=5, help="of the fitted tree")
    add("--top-k", type=int, default=2, help="of the fitted tree")
    add("--budget", type=int, default=8, help="of the fitted tree")
    add("--vocabulary", type=int, help="specdec's head drafts among the ids below this alone")
    add("--chain", type=int, default=4, help="draft tokens of the chains, specdec's and vLLM's")
    add("--draft-tokens", type=int, default=4, help="that a draft model drafts")
    add("--lookup-tokens", type=int, default=10, help="of transformers' prompt lookup")
    add("--eagle", type=Path, help="checkout of the official EAGLE code")
    add("--eagle-python", help="interpreter of an environment that can run it")
    add("--vllm-python", help="interpreter of an environment with vLLM")
    add("--vllm-eager", action="store_true", help="vLLM without compilation")
    add("--pack", action="store_true", help="specdec on packed weights (CPU)")
    add("--compile", action="store_true", help="specdec's networks compiled")
    add("--only", action="append", default=[], help="a label of the report; repeatable")
    add("--json", type=Path, help="where all results are written")
    return parser


def command(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """What to run to get it again: what is always said, and what differs from its default."""
    words = ["python", "benchmarks/peers/run.py"]
    for name, value in vars(arguments).items():
        if name not in _ALWAYS and value == parser.get_default(name):
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, list):
            words += [word for item in value for word in (option, item)]
        else:
            words += [option] if value is True else [option, _PATHS.get(name, str(value))]
    return shlex.join(words)


def main() -> None:
    parser = command_line()
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reader = Engine(arguments.target, strategy="plain")
    prompts = encode_sets(
        load_sets(arguments.data),
        reader,
        max_new_tokens=arguments.max_new_tokens,
        count=arguments.prompts,
    )
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        weights = Weights(arguments.target, arguments.head, arguments.draft)
        if arguments.inflate:
            weights = inflated(weights, arguments.inflate, arguments.dtype, folder)
        longest = max(len(prompt.token_ids) for prompt in prompts)
        common = {
            "target": weights.target,
            "dtype": arguments.dtype,
            "threads": arguments.threads,
            "eos": weights.eos,
            "context": longest + arguments.max_new_tokens,
        }
        run = Run(common, folder)
        for host in lineup(arguments, weights):
            run.start(host, stack)
        if BASELINE not in run.records:
            sys.exit(f"{BASELINE}: {run.skipped[BASELINE]}")
        load = os.getloadavg()
        run.turns(prompts, arguments.repetitions, arguments.max_new_tokens)
        parameters = weights.parameters
    report = {
        "date": date.today().isoformat(),
        "command": command(arguments, parser),
        "results": results(run.records, prompts),
        "beside": beside(run.records),
        "skipped": run.skipped,
        "facts": run.facts,
        "settings": {key: v for key, v in vars(arguments).items() if key not in _PATHS},
        "weights": {"inflated": weights.inflated, "parameters": parameters},
        "prompts": {
            "sets": dict(Counter(prompt.set for prompt in prompts)),
            "longest": longest,
        },
        "machine": {**machine(reader.target.device), "load_before": load},
        "versions": versions(),
    }
    print(markdown(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
