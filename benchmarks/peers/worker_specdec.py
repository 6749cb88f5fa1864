"""specdec's own strategies as a worker."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch

import specdec
from specdec.bench.peers.protocol import Decoded, serve


class Strategies:
    """One loaded target model; a mode is a strategy with its drafter and options.

    Args:
        job: ``target`` and ``dtype``; ``engine``, further arguments of ``Engine``; ``modes``,
            arguments of ``Engine.with_strategy`` by label.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        torch.set_num_threads(job["threads"])
        own = job.get("engine", {})
        plain = specdec.Engine(job["target"], strategy="plain", dtype=job["dtype"], **own)
        self.engines = {label: plain.with_strategy(**mode) for label, mode in job["modes"].items()}
        self.facts = {"specdec": specdec.__version__, "torch": torch.__version__, **own}

    def decode(
        self, mode: str, prompt: list[int], max_new_tokens: int, temperature: float, seed: int
    ) -> Decoded:
        """Run the decoding loop."""
        start = perf_counter()
        generation = (
            self.engines[mode]
            .session()
            .start([prompt], seed=[seed], temperature=temperature, max_new_tokens=max_new_tokens)
        )
        steps = sum(1 for _ in generation)
        seconds = perf_counter() - start
        return Decoded(generation.new_tokens(0), seconds, steps)


if __name__ == "__main__":
    serve(Strategies)
