"""What transformers' ``generate`` has prepared, as a request that an engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor
from transformers.generation import logits_process as hf
from transformers.generation import stopping_criteria as criteria

from specdec.errors import warn
from specdec.request.caller_processors import BatchRows, processors_in
from specdec.request.config_processors import warpers
from specdec.request.generation_config import Sampling
from specdec.request.generation_fields import SAMPLING
from specdec.request.prompts import encode
from specdec.request.request import Request
from specdec.request.seeds import row_seeds
from specdec.request.shown_prompts import ShownPrompt

# The fields that warpers are made of.
_WARPER_FIELDS = ("temperature", *SAMPLING, "renormalize_logits")


@dataclass(frozen=True)
class Prepared:
    """The arguments of a decoding function of transformers.

    Attributes:
        input_ids: ``[B, P]`` int64, padded on the left; on a device of their own, where processors
            and stopping criteria work.
        mask: ``[B, P]``, 0 at padding; None where there is none.
        processors: in the order in which they apply, warpers included.
        stopping: the stopping criteria, transformers' own and the caller's.
        config: with everything filled in.
    """

    input_ids: Tensor
    mask: Tensor | None
    processors: Sequence[LogitsProcessor]
    stopping: Sequence[Any]
    config: GenerationConfig

    @property
    def pads(self) -> bool:
        """Whether rows that have ended get the padding token while others go on, as transformers
        does it: if there is an eos. Without one they go on too."""
        return any(hasattr(each, "eos_token_id") for each in self.stopping)

    @property
    def pad(self) -> int:
        """The padding token's id."""
        found = getattr(self.config, "_pad_token_tensor", None)
        return 0 if found is None else int(found)

    @property
    def eos(self) -> tuple[int, ...]:
        """Tokens that end a row."""
        found = [each for each in self.stopping if type(each) is criteria.EosTokenCriteria]
        return tuple(dict.fromkeys(t for each in found for t in each.eos_token_id.tolist()))

    @property
    def other_criteria(self) -> criteria.StoppingCriteriaList:
        """Those that an engine does not know by itself."""
        known = (criteria.EosTokenCriteria, criteria.MaxLengthCriteria)
        return criteria.StoppingCriteriaList(x for x in self.stopping if type(x) not in known)

    @property
    def room(self) -> int:
        """The most new tokens of a row."""
        limits = [x.max_length for x in self.stopping if type(x) is criteria.MaxLengthCriteria]
        return max(1, min(limits, default=1 << 30) - self.input_ids.shape[1])

    def rows(self) -> list[list[int]]:
        """Token ids of each row, without padding."""
        if self.mask is None:
            found: list[list[int]] = self.input_ids.tolist()
            return found
        kept = zip(self.input_ids, self.mask.bool(), strict=True)
        return [row[real].tolist() for row, real in kept]

    def drawn_seed(self) -> int:
        """A seed that torch's generator draws, so that ``torch.manual_seed`` and
        ``transformers.set_seed`` hold; 0 where nothing is sampled."""
        return int(torch.randint((1 << 63) - 1, ())) if self.config.do_sample else 0

    def request(self, seed: Any, *, vocab_size: int, context: int, device: torch.device) -> Request:
        """The request that stands for it.

        Args:
            seed: an int, or one for each row.
            vocab_size: tokens V of the target.
            context: the most tokens that it takes.
            device: where it works.

        Raises:
            PromptError: a prompt that cannot be decoded.
            OptionError: a processor that several rows cannot share, or a seed that is none.
        """
        rows = encode(self.rows(), None, vocab_size=vocab_size, context=context).rows
        sampled, samples = bool(self.config.do_sample), self.config.num_return_sequences or 1
        limits = [min(len(row) + self.room, context) for row in rows]
        if any(limit < len(row) + self.room for limit, row in zip(limits, rows, strict=True)):
            warn(
                f"the model's context of {context} tokens has no room for {self.room} new ones: "
                "texts end there, where transformers' own generate goes on beyond"
            )
        shown: list[ShownPrompt] = []
        if self.mask is not None and any(len(row) < self.input_ids.shape[1] for row in rows):
            ids = self.input_ids
            shown = [ShownPrompt(ids[i : i + 1], len(row)) for i, row in enumerate(rows)]
        config, own = self._settings(shown)
        sampling = Sampling(
            config=config,
            greedy=not sampled,
            max_new_tokens=None,
            eos=self.eos,
            stop=(),
            custom=processors_in([_of_one(each, samples) for each in own]),
            samples=samples,
        )
        keeps = bool(self.config.return_dict_in_generate) and bool(
            self.config.output_scores or self.config.output_logits
        )
        return Request(
            rows,
            batched=True,
            seeds=row_seeds(seed, len(rows), samples),
            limits=limits,
            sampling=sampling,
            skip_special_tokens=True,
            place=BatchRows(
                range(len(rows)),
                len(rows),
                samples,
                shown,
                device=None if self.input_ids.device == device else self.input_ids.device,
            ),
            keeps_scores=keeps,
        )

    def _settings(
        self, shown: Sequence[ShownPrompt]
    ) -> tuple[GenerationConfig, list[LogitsProcessor]]:
        """The settings that the engine makes processors of itself, in the same order, and the
        processors beside them: where it can, so that drafts are made under the same warpers."""
        config, processors = GenerationConfig(), list(self.processors)
        if self.config.do_sample:
            asked = GenerationConfig()
            for name in _WARPER_FIELDS:
                setattr(asked, name, getattr(self.config, name))
            tail = [type(each) for each in warpers(asked, self.input_ids.device)]
            if tail and [type(each) for each in processors[-len(tail) :]] == tail:
                config, processors = asked, processors[: -len(tail)]
        if processors and type(processors[0]) is hf.RepetitionPenaltyLogitsProcessor:
            ignored = processors[0].prompt_ignore_length
            padding = [one.tokens.shape[1] - one.length for one in shown]
            if isinstance(ignored, Tensor) and ignored.tolist() == padding:
                config.repetition_penalty = processors.pop(0).penalty
        return config, processors


def _of_one(processor: LogitsProcessor, samples: int) -> LogitsProcessor:
    """A constraint for each row by itself, which transformers makes for ``samples`` rows."""
    if type(processor) is not hf.PrefixConstrainedLogitsProcessor:
        return processor
    if processor._num_beams != samples:
        return processor
    return hf.PrefixConstrainedLogitsProcessor(processor._prefix_allowed_tokens_fn, 1)
