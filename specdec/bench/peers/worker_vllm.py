"""vLLM as a worker: plain decoding, or a chain drafted with an EAGLE head; one mode a process."""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any

# In the worker's own process: no second one to talk to, none that spins while others are timed.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

from protocol import Decoded, serve


class Served:
    """One engine of vLLM.

    Args:
        job: ``target``, ``dtype``, ``eos``, ``threads``; ``context``, tokens of the longest prompt
            and its new tokens; ``modes``, one of them, empty or
            ``{"head": FOLDER, "depth": DRAFT_TOKENS}``, with ``"method": "eagle3"`` for a head of
            EAGLE-3.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        cores = sorted(os.sched_getaffinity(0))[: job["threads"]]
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
        import torch
        import vllm

        ((self.label, mode),) = job["modes"].items()
        head = mode.get("head")
        self.depth, self.eos = mode.get("depth", 0), job["eos"]
        method = mode.get("method", "eagle")
        speculative = {"method": method, "model": head, "num_speculative_tokens": self.depth}
        self.llm = vllm.LLM(
            job["target"],
            dtype=job["dtype"],
            max_model_len=job["context"] + self.depth + 1,
            max_num_seqs=1,
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
            disable_log_stats=False,
            speculative_config=speculative if head else None,
        )
        self.facts = {"vllm": vllm.__version__, "torch": torch.__version__}

    def decode(
        self, mode: str, prompt: list[int], max_new_tokens: int, temperature: float, seed: int
    ) -> Decoded:
        """Run ``LLM.generate`` on the one prompt."""
        from vllm import SamplingParams

        if mode != self.label:
            raise ValueError(f"this process decodes {self.label!r}, not {mode!r}")
        parameters = SamplingParams(
            temperature=temperature,
            seed=seed,
            max_tokens=max_new_tokens,
            stop_token_ids=self.eos,
            detokenize=False,
        )
        before = self._drafts()
        start = perf_counter()
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompt}], sampling_params=parameters, use_tqdm=False
        )
        seconds = perf_counter() - start
        tokens = list(outputs[0].outputs[0].token_ids)
        # The prefill gives the first token; every chain is one step more.
        steps = 1 + self._drafts() - before if self.depth else len(tokens)
        return Decoded(tokens, seconds, steps)

    def _drafts(self) -> int:
        """Chains drafted so far."""
        name = "vllm:spec_decode_num_drafts"
        return sum(int(metric.value) for metric in self.llm.get_metrics() if metric.name == name)


if __name__ == "__main__":
    serve(Served)
