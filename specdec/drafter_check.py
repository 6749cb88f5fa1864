"""The check of a drafter on text of the target's own, when an engine is made."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from specdec.decoding.drafter_report import DrafterReport
from specdec.decoding.interfaces import ReportsItself
from specdec.errors import PromptError
from specdec.models.hf_target import HFTarget
from specdec.request.prompts import encode

# Tokens that the target writes: the most, and those that it writes however slow it is.
_MOST, _FEWEST, _SECONDS = 48, 12, 3.0
_QUESTION = "Why is the sky blue? Explain it in a few sentences, to a child."
_BEGINNING = "Once upon a time, there was a small village by the sea. Every morning"


@dataclass
class OwnText:
    """A short greedy text of a target's own, written when it is first needed.

    Attributes:
        tokens: ``[1, T]`` int64, prompt and text; None until it is written.
        prompt: how many of them are the prompt.
    """

    tokens: Tensor | None = None
    prompt: int = 0

    @torch.inference_mode()
    def write(self, target: HFTarget, tokenizer: PreTrainedTokenizerBase | None) -> Tensor:
        """The text, of a target that has not changed since."""
        if self.tokens is None:
            ids = _prompt(target, tokenizer)
            self.prompt, self.tokens = len(ids), _greedy(target, ids)
        return self.tokens


def report_on(
    drafter: object, text: OwnText, target: HFTarget, tokenizer: PreTrainedTokenizerBase | None
) -> DrafterReport | None:
    """What the drafter says of itself; None if it says nothing, or the target writes too little.

    It draws no random number.
    """
    if not isinstance(drafter, ReportsItself):
        return None
    tokens = text.write(target, tokenizer)
    if tokens.shape[1] < text.prompt + 2:
        return None
    with torch.inference_mode():
        return drafter.report(tokens, text.prompt)


def _prompt(target: HFTarget, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """A question where there is a chat template, else the beginning of a story, else one token."""
    room = target.context_limit - _FEWEST
    message = [{"role": "user", "content": _QUESTION}]
    for prompt in (message, _BEGINNING) if tokenizer else ():
        try:
            return encode(prompt, tokenizer, vocab_size=target.vocab_size, context=room).rows[0]
        except PromptError:
            continue
    first = getattr(target.config, "bos_token_id", None)
    return [first if isinstance(first, int) and 0 <= first < target.vocab_size else 0]


def _greedy(target: HFTarget, ids: list[int]) -> Tensor:
    """The prompt and what the target writes after it: ``[1, T]`` int64."""
    plain = target.unaccelerated()
    plain.aux_layers = ()
    most = min(_MOST, plain.context_limit - len(ids))
    tokens = torch.tensor([ids], device=plain.device)
    cache = plain.new_cache(1, len(ids) + most)
    hidden = plain.prefill(tokens, cache).last[:, -1:]
    cache.advance(torch.tensor([len(ids)], device=plain.device), len(ids))
    one = torch.ones(1, 1, 1, dtype=torch.bool, device=plain.device)
    start = time.perf_counter()
    for count in range(1, most + 1):
        tokens = torch.cat([tokens, plain.logits(hidden).argmax(-1)], dim=1)
        slow = count >= _FEWEST and time.perf_counter() - start > _SECONDS
        if slow or count == most:
            break
        hidden = plain.forward(tokens[:, -1:], cache.lengths[:, None], one, cache).last
        cache.advance(one[0, 0].long(), tokens.shape[1])
    return tokens
