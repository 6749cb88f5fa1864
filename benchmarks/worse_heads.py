"""EAGLE-2's gain over EAGLE with one head made worse step by step, on the same prompts.

    OMP_NUM_THREADS=1 python benchmarks/worse_heads.py --data PROMPTS --count 2 --json OUT.json

Noise is added to every matrix of the head: normal, with so many times the standard deviation of
the tensor. EAGLE's tree has 25 draft tokens, EAGLE-2's has 60 at depth 6 and k 10. tau is that of
all tokens of all prompts (first turns), so it does not depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from side_by_side import circumstances, prompts_in_turns

from specdec import Engine
from specdec.bench import Prompt
from specdec.plugin.registry import Registry

TREES: dict[str, dict[str, Any]] = {
    "static_tree": {},
    "eagle2": {"policy": {"depth": 6, "top_k": 10, "budget": 60}},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2", help="an alias that has an EAGLE head")
    parser.add_argument("--data", type=Path, required=True, help="prompt files")
    parser.add_argument("--count", type=int, default=2, help="prompts of each set")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def made_worse(head: Path, noise: float, into: Path) -> Path:
    """A copy of a head's folder with noise in its weights, the same for the same ``noise``."""
    generator = torch.Generator().manual_seed(0)
    into.mkdir()
    for file in head.glob("*.json"):
        (into / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    weights = load_file(head / "model.safetensors")
    for name, weight in weights.items():
        if weight.ndim > 1:
            drawn = torch.randn(weight.shape, generator=generator)
            weights[name] = (weight + noise * weight.float().std() * drawn).to(weight.dtype)
    save_file(weights, into / "model.safetensors")
    return into


def taus(engine: Engine, prompts: Sequence[Prompt], **settings: Any) -> list[tuple[int, int]]:
    """New tokens and target forwards of each prompt."""
    found = []
    for prompt in prompts:
        result = engine.generate(list(prompt.token_ids), seed=prompt.index, **settings)
        assert not isinstance(result, list)
        found.append((result.stats.new_tokens, result.stats.target_forwards))
    return found


def tau(pairs: Sequence[tuple[int, int]]) -> float:
    return sum(tokens for tokens, _ in pairs) / sum(forwards for _, forwards in pairs)


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    alias = Registry.load().models[given.model]
    options = dict(alias.options.get("static_tree", {}).get("drafter", {}))
    plain = Engine(given.model, strategy="plain", pack=True)
    new = given.max_new_tokens
    prompts = prompts_in_turns(given.data, plain, given.count, new)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for noise in track(given.noise, description="noise"):
            head = made_worse(Path(alias.drafters["eagle"]), noise, Path(folder) / str(noise))
            found = {
                name: taus(
                    plain.with_strategy(name, drafter=head, options={**tree, "drafter": options}),
                    prompts,
                    max_new_tokens=new,
                    temperature=given.temperature,
                )
                for name, tree in TREES.items()
            }
            eagle, eagle2 = (tau(found[name]) for name in TREES)
            gains = [
                (a[0] / a[1]) / (b[0] / b[1])
                for a, b in zip(found["eagle2"], found["static_tree"], strict=True)
            ]
            rows.append(
                {
                    "noise": noise,
                    "eagle": eagle,
                    "eagle2": eagle2,
                    "gain": eagle2 / eagle,
                    "gain_by_prompt": gains,
                    "standard_error": statistics.stdev(gains) / len(gains) ** 0.5,
                }
            )
            print(f"| {noise} | {eagle:.2f} | {eagle2:.2f} | {eagle2 / eagle:.2f} |", flush=True)
    if given.json:
        record = {**circumstances(plain, prompts), "rows": rows}
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
