"""Strategies on the same prompts with the same seeds, beside the text of plain decoding."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from specdec import Engine
from specdec.bench import Prompt, encode_sets, load_sets
from specdec.bench.machine import machine, versions
from specdec.decoding.step import Step


def prompts_in_turns(folder: Path, engine: Engine, count: int, new_tokens: int) -> list[Prompt]:
    """The first ``count`` prompts of each set, one of each set after the other: whatever is learned
    from one kind of text meets another at once."""
    prompts = encode_sets(load_sets(folder), engine, max_new_tokens=new_tokens, count=count)
    place: dict[str, int] = {}
    ranked = []
    for prompt in prompts:
        ranked.append((place.get(prompt.set, 0), prompt))
        place[prompt.set] = ranked[-1][0] + 1
    return [prompt for _, prompt in sorted(ranked, key=lambda pair: pair[0])]


def steps(engine: Engine, prompt: Prompt, *, new_tokens: int, temperature: float) -> Iterator[Step]:
    """The steps of one text; the seed is the prompt's place in its set."""
    return iter(
        engine.session().start(
            list(prompt.token_ids),
            max_new_tokens=new_tokens,
            temperature=temperature,
            seed=prompt.index,
        )
    )


class Reference:
    """The texts of plain decoding, decoded once each.

    Args:
        decode: from prompt and temperature to steps.
    """

    def __init__(self, decode: Callable[[Prompt, float], Iterator[Step]]) -> None:
        self._decode = decode
        self._known: dict[tuple[str, int, float], list[int]] = {}

    def same(self, prompt: Prompt, temperature: float, tokens: Sequence[int]) -> bool:
        """Whether plain decoding writes ``tokens``."""
        key = (prompt.set, prompt.index, temperature)
        if key not in self._known:
            self._known[key] = [
                token for step in self._decode(prompt, temperature) for token in step.new_tokens[0]
            ]
        return self._known[key] == list(tokens)


def circumstances(engine: Engine, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Date, machine, versions, command, model and prompts of a run, for the record."""
    sets: dict[str, int] = {}
    for prompt in prompts:
        sets[prompt.set] = sets.get(prompt.set, 0) + 1
    return {
        "date": date.today().isoformat(),
        "machine": machine(engine.target.device),
        **versions(),
        "command": command(sys.argv),
        "model": engine.model_name,
        "dtype": str(engine.target.dtype).removeprefix("torch."),
        "device": str(engine.target.device),
        "threads": torch.get_num_threads(),
        "prompts": sets,
    }


def command(arguments: Sequence[str]) -> str:
    """The command line without the paths of this machine."""
    shown = ["python", f"benchmarks/{Path(arguments[0]).name}"]
    names = {"--data": "PROMPTS", "--json": "OUT.json", "--plot": "OUT.png"}
    hidden = None
    for argument in arguments[1:]:
        name, equals, _ = argument.partition("=")
        if hidden is not None:
            shown.append(hidden)
        elif equals and name in names:
            shown.append(f"{name}={names[name]}")
        else:
            shown.append(argument)
        hidden = names.get(argument) if hidden is None else None
    return " ".join(shown)
