"""transformers' ``generate`` as a worker: plain, assisted by a draft model, prompt lookup."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

from specdec.bench.peers.protocol import Decoded, serve


class Generate:
    """One loaded target model; a mode is what ``generate`` is given besides.

    Args:
        job: ``target``, ``dtype``, ``eos``; ``modes`` by label, each of them empty, or
            ``{"assistant": FOLDER}`` with or without ``num_assistant_tokens``, or
            ``{"prompt_lookup_num_tokens": N}``.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        torch.set_num_threads(job["threads"])
        transformers.logging.set_verbosity_error()
        self.dtype, self.eos = getattr(torch, job["dtype"]), job["eos"]
        self.model = self._load(job["target"])
        self.forwards = 0
        self.model.register_forward_pre_hook(self._count)
        self.modes = {label: self._mode(**mode) for label, mode in job["modes"].items()}
        self.facts = {"transformers": transformers.__version__, "torch": torch.__version__}

    def decode(
        self, mode: str, prompt: list[int], max_new_tokens: int, temperature: float, seed: int
    ) -> Decoded:
        """Run ``generate``; a forward that holds both the prompt and draft tokens is one step."""
        config = GenerationConfig(
            do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=self.eos, pad_token_id=0
        )
        self.forwards = 0
        start = perf_counter()
        ids = torch.tensor([prompt])
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            **self.modes[mode],
        )
        tokens = output[0, len(prompt) :].tolist()
        return Decoded(tokens, perf_counter() - start, self.forwards)

    def _count(self, *_: Any) -> None:
        self.forwards += 1

    def _load(self, folder: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=self.dtype, trust_remote_code=False
        ).eval()

    def _mode(
        self, assistant: str | None = None, num_assistant_tokens: int | None = None, **given: Any
    ) -> dict[str, Any]:
        if assistant is None:
            return given
        model = self._load(assistant)
        if num_assistant_tokens is not None:
            # transformers reads these from the assistant's own config.
            model.generation_config.num_assistant_tokens = num_assistant_tokens
            model.generation_config.num_assistant_tokens_schedule = "constant"
            model.generation_config.assistant_confidence_threshold = 0.0
        return {"assistant_model": model}


if __name__ == "__main__":
    serve(Generate)
