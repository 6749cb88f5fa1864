"""Which decoders take part, and in which process each of them runs."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weights import Weights

from specdec.bench import peers

BASELINE = "transformers"
OURS = "specdec"
PUBLISHED = {"depth": 6, "top_k": 10, "budget": 60}
HERE, THERE = Path(__file__).parent, Path(peers.__file__).parent


@dataclass
class Host:
    """A worker process to be.

    Attributes:
        script: the worker's file.
        python: interpreter of its environment.
        job: what it is told besides what all are told.
        modes: what it decodes with, by the label in the report.
        missing: why it cannot be started.
    """

    script: Path
    python: str
    job: dict[str, Any] = field(default_factory=dict)
    modes: dict[str, Any] = field(default_factory=dict)
    missing: str | None = None


def lineup(arguments: argparse.Namespace, weights: Weights) -> list[Host]:
    """All hosts, the baseline's first, with the modes that were asked for."""
    fitted = {"depth": arguments.depth, "top_k": arguments.top_k, "budget": arguments.budget}
    trees = {"published tree": PUBLISHED, "fitted tree": fitted}
    hosts = [
        _transformers(arguments, weights),
        *_specdec(arguments, weights, trees),
        _official(arguments, weights, trees),
        *_vllm(arguments, weights),
    ]
    known = [label for host in hosts for label in host.modes]
    if unknown := set(arguments.only) - set(known):
        sys.exit(f"no label {', '.join(sorted(unknown))}: choose from {'; '.join(known)}")
    for host in hosts:
        host.modes = {
            label: mode
            for label, mode in host.modes.items()
            if not arguments.only or label in arguments.only or label == BASELINE
        }
    return [host for host in hosts if host.modes]


def _transformers(arguments: argparse.Namespace, weights: Weights) -> Host:
    draft = {"assistant": weights.draft}
    modes = {
        BASELINE: {},
        "transformers, draft model": draft,
        f"transformers, draft model, {arguments.draft_tokens} tokens": {
            **draft,
            "num_assistant_tokens": arguments.draft_tokens,
        },
        "transformers, prompt lookup": {"prompt_lookup_num_tokens": arguments.lookup_tokens},
    }
    return Host(HERE / "worker_transformers.py", sys.executable, modes=modes)


def _specdec(
    arguments: argparse.Namespace, weights: Weights, trees: dict[str, dict[str, int]]
) -> list[Host]:
    head = {"drafter": weights.head}
    own: dict[str, Any] = {"dtype": arguments.dtype}
    if arguments.vocabulary:
        own["vocabulary"] = arguments.vocabulary
    modes: dict[str, Any] = {f"{OURS} plain": {"strategy": "plain"}}
    for name, tree in trees.items():
        options = {"drafter": own, "policy": tree}
        modes[f"{OURS} eagle2, {name}"] = {"strategy": "eagle2", **head, "options": options}
    modes[f"{OURS} auto"] = {"strategy": "auto", **head, "options": {"drafter": own}}
    modes[f"{OURS} chain"] = {
        "strategy": "chain",
        **head,
        "options": {"drafter": own, "policy": {"depth": arguments.chain}},
    }
    modes[f"{OURS} lookup"] = {"strategy": "lookup"}
    modes[f"{OURS} draft model"] = {
        "strategy": "draft_model",
        "drafter": weights.draft,
        "acceptor": "match",
        "options": {"policy": {"depth": arguments.draft_tokens}},
    }
    accelerated = ("pack", "compile")
    job = {"engine": {name: getattr(arguments, name) for name in accelerated}}
    return [Host(HERE / "worker_specdec.py", sys.executable, job, modes)]


def _official(
    arguments: argparse.Namespace, weights: Weights, trees: dict[str, dict[str, int]]
) -> Host:
    python = arguments.eagle_python or sys.executable
    modes = {f"official EAGLE, {name}": tree for name, tree in trees.items()}
    host = Host(THERE / "worker_eagle.py", python, modes=modes)
    if arguments.eagle is None:
        host.missing = "no checkout of it was given (--eagle)"
    elif not (arguments.eagle / "eagle" / "model" / "ea_model.py").is_file():
        host.missing = f"there is no eagle/model/ea_model.py in {arguments.eagle}"
    else:
        host.missing = _no_python(python)
        host.job = {"eagle": str(arguments.eagle.resolve()), "head": weights.head}
    return host


def _vllm(arguments: argparse.Namespace, weights: Weights) -> list[Host]:
    python, job = arguments.vllm_python or sys.executable, {"eager": arguments.vllm_eager}
    chain = {"head": weights.head, "depth": arguments.chain}
    hosts = [
        Host(THERE / "worker_vllm.py", python, job, {"vLLM": {}}),
        Host(THERE / "worker_vllm.py", python, job, {"vLLM, EAGLE chain": chain}),
    ]
    missing = _no_python(python)
    if arguments.vllm_python is None and importlib.util.find_spec("vllm") is None:
        missing = "vLLM is not installed here, and no environment was given (--vllm-python)"
    for host in hosts:
        host.missing = missing
    return hosts


def _no_python(python: str) -> str | None:
    return None if shutil.which(python) else f"there is no interpreter {python}"
