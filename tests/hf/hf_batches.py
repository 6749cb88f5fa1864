"""Left-padded batches, and transformers' generate beside specdec in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import specdec.hf

PAD = 0
PROMPTS = [[5, 9, 1, 22, 3, 22, 11, 40, 2, 8], [4], [6, 22, 1], [5, 9, 1, 5, 9]]


def padded(prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Inputs of generate."""
    longest = max(map(len, prompts))
    rows = [[PAD] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    masks = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


def both(
    model: Any, prompts: Sequence[Sequence[int]], decoder: Any = None, **settings: Any
) -> tuple[Any, Any]:
    """What transformers' own generate returns, and what it returns with specdec in it.

    Settings that are functions without arguments are called for each, to be made anew.
    """
    settings = {"max_new_tokens": 12, "pad_token_id": PAD, "do_sample": False, **settings}

    def run(custom: Any) -> Any:
        made = {name: each() if callable(each) else each for name, each in settings.items()}
        return model.generate(**padded(prompts), custom_generate=custom, **made)

    return run(None), run(decoder or specdec.hf.decoder("lookup"))


def live(output: Any, prompt_length: int, eos: Sequence[int]) -> list[list[bool]]:
    """Of each column of an output: the rows that had not ended before it."""
    new = output.sequences[:, prompt_length:]
    ended = torch.zeros(len(new), dtype=torch.bool)
    found = []
    for column in new.T:
        found.append((~ended).tolist())
        ended |= torch.isin(column, torch.tensor(list(eos), dtype=torch.int64))
    return found
