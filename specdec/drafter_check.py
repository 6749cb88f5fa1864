"""The check of a drafter on text that the target writes, when an engine is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from specdec.decoding.drafter_report import DrafterReport
from specdec.decoding.interfaces import ReportsItself
from specdec.errors import DrafterWarning, PromptError, first_line, warn
from specdec.models.hf_target import HFTarget
from specdec.request.prompts import encode

# Tokens that the target writes: the most, and those that it writes however slow it is.
_MOST_TOKENS, _FEWEST_TOKENS, _SECONDS = 48, 12, 3.0
_QUESTION = "Why is the sky blue? Explain it in a few sentences, to a child."
_BEGINNING = "Once upon a time, there was a small village by the sea. Every morning"

# The next token [1, 1] after a text [1, T] that has grown by at most one token since.
Next = Callable[[Tensor], Tensor]


@dataclass
class TargetText:
    """A short greedy text of a target, written when it is first needed.

    Attributes:
        tokens: ``[1, T]`` int64, prompt and text; None until it is written.
        prompt: how many of them are the prompt.
    """

    tokens: Tensor | None = None
    prompt: int = 0

    @torch.inference_mode()
    def write(
        self,
        target: HFTarget,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        uses_cache: bool = True,
    ) -> Tensor:
        """The text, of a target that has not changed since; the longest where all end early.

        Args:
            uses_cache: whether the target takes a cache.
        """
        if self.tokens is None:
            found: list[tuple[Tensor, int]] = []
            for ids in _prompts(target, tokenizer):
                found.append((_greedy(target, ids, uses_cache), len(ids)))
                if found[-1][0].shape[1] - len(ids) >= _FEWEST_TOKENS:
                    break
            self.tokens, self.prompt = max(found, key=lambda each: each[0].shape[1] - each[1])
        return self.tokens


def report_on(
    drafter: object,
    text: TargetText,
    target: HFTarget,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    uses_cache: bool = True,
) -> DrafterReport | None:
    """What the drafter says of itself; None if it says nothing, or the target writes too little.

    It draws no random number. Where it fails there is a warning and no report: no draft depends on
    it.

    Args:
        uses_cache: whether the target takes a cache.
    """
    if not isinstance(drafter, ReportsItself):
        return None
    try:
        tokens = text.write(target, tokenizer, uses_cache=uses_cache)
        if tokens.shape[1] < text.prompt + 2:
            return None
        with torch.inference_mode():
            return drafter.report(tokens, text.prompt)
    except Exception as error:
        warn(
            "the drafter was not compared with text of the target's own: "
            f"{type(error).__name__}: {first_line(error)}",
            DrafterWarning,
        )
        return None


def _prompts(target: HFTarget, tokenizer: PreTrainedTokenizerBase | None) -> Iterator[list[int]]:
    """A question where there is a chat template, the beginning of a story, one token."""
    room = target.context_limit - _FEWEST_TOKENS
    message = [{"role": "user", "content": _QUESTION}]
    for prompt in (message, _BEGINNING) if tokenizer else ():
        try:
            yield encode(prompt, tokenizer, vocab_size=target.vocab_size, context=room).rows[0]
        except PromptError:
            continue
    first = getattr(target.config, "bos_token_id", None)
    yield [first if isinstance(first, int) and 0 <= first < target.vocab_size else 0]


def _greedy(target: HFTarget, ids: list[int], uses_cache: bool) -> Tensor:
    """The prompt and what the target writes after it, to the end of the text: ``[1, T]`` int64."""
    start = time.perf_counter()
    plain = target.unaccelerated()
    plain.aux_layers = ()
    most = min(_MOST_TOKENS, plain.context_limit - len(ids))
    tokens, ends = torch.tensor([ids], device=plain.device), _end_tokens(target)
    next_token = _cached(plain, len(ids) + most) if uses_cache else _uncached(plain)
    for count in range(1, most + 1):
        tokens = torch.cat([tokens, next_token(tokens)], dim=1)
        slow = count >= _FEWEST_TOKENS and _time_is_up(start, target)
        if slow or int(tokens[0, -1]) in ends:
            break
    return tokens


def _time_is_up(start: float, target: HFTarget) -> bool:
    """Whether the time is up; for all ranks when it is up for the first."""

    def is_up() -> bool:
        return time.perf_counter() - start > _SECONDS

    return target.ranks.decided(is_up) if target.ranks else is_up()


def _cached(target: HFTarget, capacity: int) -> Next:
    cache = target.new_cache(1, capacity)
    one = torch.ones(1, 1, 1, dtype=torch.bool, device=target.device)

    def next_token(tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if cache.longest == 0:
            hidden = target.prefill(tokens, cache)
        else:
            hidden = target.forward(tokens[:, -1:], cache.lengths[:, None], one, cache)
        cache.advance(torch.tensor([length - cache.longest], device=target.device), length)
        return target.logits(hidden.last[:, -1:]).argmax(-1)

    return next_token


def _uncached(target: HFTarget) -> Next:
    return lambda tokens: target.logits(target.read(tokens).last[:, -1:]).argmax(-1)


def _end_tokens(target: HFTarget) -> set[int]:
    """Tokens that end a text."""
    for config in (getattr(target.model, "generation_config", None), target.config):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return {*ids} if isinstance(ids, (list, tuple)) else {ids}
    return set()
