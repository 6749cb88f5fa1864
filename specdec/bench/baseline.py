"""transformers' own ``generate`` on the same model, with the same processors; its prompt lookup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import transformers

from specdec.bench.contenders import Decoded
from specdec.bench.settings import Settings
from specdec.decoding.metrics import Stats
from specdec.request.generation_config import Sampling, resolve

if TYPE_CHECKING:
    from specdec.engine import Engine

TRANSFORMERS = "transformers"
PROMPT_LOOKUP = "transformers prompt lookup"


@dataclass(frozen=True)
class TransformersContender:
    """``model.generate``, rows padded on the left.

    Its first forward is its prefill, which commits a token too. What it does inside a step is not
    known.

    Attributes:
        engine: whose target model decodes, and whose defaults hold.
        label: what it is called in the report.
        options: further fields of its generation config, e.g. ``prompt_lookup_num_tokens``.
        most_rows: the most rows that it decodes together; None for any number.
    """

    engine: Engine
    label: str = TRANSFORMERS
    options: Mapping[str, Any] = field(default_factory=dict)
    most_rows: int | None = None

    @classmethod
    def with_prompt_lookup(cls, engine: Engine, draft_tokens: int = 10) -> TransformersContender:
        """``generate`` with ``prompt_lookup_num_tokens``, which takes one row at a time."""
        return cls(engine, PROMPT_LOOKUP, {"prompt_lookup_num_tokens": draft_tokens}, most_rows=1)

    def decode(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], settings: Settings
    ) -> Decoded:
        """Run ``generate``; sampling draws from torch's generator, seeded by the first row."""
        sampling = resolve(
            self.engine.generation_config,
            settings.decoding(),
            default_new_tokens=settings.max_new_tokens,
        )
        config = _config(sampling)
        config.update(**self.options)
        width = max(len(row) for row in rows)
        padded = [[config.pad_token_id] * (width - len(row)) + list(row) for row in rows]
        real = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        device = self.engine.target.device
        model = self.engine.target.model
        forwards = 0

        def count(*_: Any) -> None:
            nonlocal forwards
            forwards += 1

        counting = model.register_forward_pre_hook(count)
        with counting, torch.random.fork_rng(enabled=not sampling.greedy):
            if not sampling.greedy:
                torch.manual_seed(seeds[0])
            output = model.generate(
                torch.tensor(padded, device=device),
                attention_mask=torch.tensor(real, device=device),
                generation_config=config,
            )
        tokens = [_until_eos(row, sampling.eos) for row in output[:, width:].tolist()]
        return Decoded(tokens, _stats(tokens, forwards), steps=forwards)

    def may_differ(self, *, greedy: bool) -> str | None:
        """Where tokens are sampled: it draws other random numbers."""
        return None if greedy else "transformers draws other random numbers"

    def facts(self) -> dict[str, Any]:
        """The version."""
        return {"version": transformers.__version__, "lossless": True}


def _config(sampling: Sampling) -> transformers.GenerationConfig:
    """The resolved config; what specdec takes as off is off here too."""
    config = sampling.config
    config.do_sample = not sampling.greedy
    if sampling.greedy:
        config.temperature = 1.0
    elif config.top_k is None:
        config.top_k = 0  # transformers would fill in 50
    if config.pad_token_id is None:
        config.pad_token_id = 0
    return config


def _until_eos(tokens: list[int], eos: Sequence[int]) -> list[int]:
    end = next((at + 1 for at, token in enumerate(tokens) if token in eos), len(tokens))
    return tokens[:end]


def _stats(tokens: list[list[int]], forwards: int) -> Stats:
    """Of rows together every forward makes one token of each; one row may get more."""
    new_tokens = sum(map(len, tokens))
    target_forwards = forwards if len(tokens) == 1 else new_tokens
    return Stats(
        new_tokens=new_tokens,
        target_forwards=target_forwards,
        draft_forwards=0,
        tau=new_tokens / target_forwards if target_forwards else 0.0,
    )
