"""The caller's own logits processors: one for all prompts of a call, or one for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.generation import logits_process as hf

from specdec.errors import OptionError
from specdec.request.processor_stages import (
    PREFIX_FREE,
    SET_BASED,
    PerRow,
    PrefixFree,
    SetBased,
    Stage,
    named,
)
from specdec.request.rollback import Forks, rolled_back
from specdec.request.shared_processors import Shared
from specdec.request.shown_prompts import ShownPrompt
from specdec.request.wrapped_processors import OnDevice, OnShownPrompt

# Processors of transformers that are functions of a row's own prefix: one serves every row.
BY_PREFIX = (
    *PREFIX_FREE,
    hf.MinLengthLogitsProcessor,
    hf.MinNewTokensLengthLogitsProcessor,
    hf.NoRepeatNGramLogitsProcessor,
    hf.SequenceBiasLogitsProcessor,
    hf.NoBadWordsLogitsProcessor,
    hf.ForcedBOSTokenLogitsProcessor,
    hf.ForcedEOSTokenLogitsProcessor,
    hf.ExponentialDecayLengthPenalty,
    hf.SuppressTokensAtBeginLogitsProcessor,
    hf.WhisperTimeStampLogitsProcessor,
    hf.AlternatingCodebooksLogitsProcessor,
    hf.BarkEosPrioritizerLogitsProcessor,
    hf.WatermarkLogitsProcessor,
)
# Those that take several rows of scores for one text.
SEVERAL_ROWS = (
    hf.ClassifierFreeGuidanceLogitsProcessor,
    hf.DiaClassifierFreeGuidanceLogitsProcessor,
    hf.DiaEOSChannelFilterLogitsProcessor,
    hf.DiaEOSDelayPatternLogitsProcessor,
)


@dataclass(frozen=True)
class BatchRows:
    """Where the rows of a batch stand among those of a call.

    Attributes:
        rows: for each row its index among those of the call.
        total: how many rows the call has.
        samples: how many of them each prompt has; those of one prompt come one after the other.
        shown: for each row the prompt as the caller's processors are to see it; empty where that is
            the prompt as the model reads it.
        device: where the caller's processors work; None where the model does.
    """

    rows: Sequence[int]
    total: int
    samples: int = 1
    shown: Sequence[ShownPrompt] = ()
    device: torch.device | None = None

    @property
    def prompts(self) -> int:
        """How many prompts the call was given."""
        return self.total // self.samples

    def prompt(self, row: int) -> int:
        """The index of the prompt of a row of the call."""
        return row // self.samples

    def part(self, rows: Sequence[int]) -> BatchRows:
        """The place of some of the rows."""
        return replace(
            self,
            rows=[self.rows[row] for row in rows],
            shown=[self.shown[row] for row in rows] if self.shown else (),
        )


def listed(given: Any) -> list[Any]:
    """A list of what may be one thing, a list of them, or None."""
    if given is None:
        return []
    if isinstance(given, (list, tuple)):
        return list(given)
    return [given]


def processors_in(given: Any, origin: str = "logits_processor") -> tuple[LogitsProcessor, ...]:
    """What a caller gave as a processor, or a list of them, each checked.

    Raises:
        OptionError: something that cannot be called as a logits processor.
    """
    found = tuple(listed(given))
    for processor in found:
        if not callable(processor) or inspect.isclass(processor):
            raise OptionError(
                f"{origin} must be transformers processors, not {processor!r}. Those that differ "
                "from prompt to prompt are given as logits_processor_by_prompt"
            )
        if not _takes(processor, None, None):
            raise OptionError(
                f"{origin}: {named(processor)} cannot be called with (input_ids, scores). A "
                "function that makes a processor for each prompt is given as "
                "logits_processor_by_prompt"
            )
        if isinstance(processor, SEVERAL_ROWS):
            raise OptionError(
                f"{origin}: {named(processor)} takes several rows of scores for one text; specdec "
                "decodes each text as one row"
            )
        beams = getattr(processor, "_num_beams", 1)
        if isinstance(processor, hf.PrefixConstrainedLogitsProcessor) and beams != 1:
            raise OptionError(
                f"{origin}: {named(processor)} was made for num_beams={beams}, and specdec has no "
                "beam search: make it with num_beams=1"
            )
    return found


def _takes(function: Callable[..., Any], *arguments: object) -> bool:
    """Whether a function takes these arguments; True if it has no signature."""
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:
        return True  # it has no signature
    except TypeError:
        return False
    return True


class ByPrompt:
    """Processors given for each prompt.

    Args:
        given: a sequence with an entry for each prompt, or a function that makes the entry from
            the prompt's index. An entry is a processor, a list of them, or None.
        total: how many prompts there are.

    Attributes:
        once: whether the processors cannot be made anew.

    Raises:
        OptionError: neither of these, or a sequence of another length.
    """

    def __init__(self, given: Any, total: int) -> None:
        self._make: Callable[[int], Any]
        if isinstance(given, (list, tuple)):
            if len(given) != total:
                raise OptionError(
                    f"logits_processor_by_prompt has {len(given)} entries for {total} prompts: it "
                    "needs one for each (None for a prompt that has no processor)"
                )
            self._make = given.__getitem__
        elif callable(given) and _takes(given, 0):
            self._make = given
        else:
            raise OptionError(
                "logits_processor_by_prompt must be a list with an entry for each prompt, or a "
                f"function that makes an entry from the index of the prompt, not {given!r}"
            )
        self.once = self._make is not given
        self._owners: dict[int, tuple[object, int]] = {}  # the objects too: see _reachable

    @classmethod
    def of(cls, given: Any, total: int) -> ByPrompt | None:
        """What was given, None included, unless it is one already."""
        return given if given is None or isinstance(given, cls) else cls(given, total)

    def stages(self, place: BatchRows) -> list[Stage]:
        """How they are called on the rows of a batch: each as if its row were alone."""
        rows = [self._entry(row, place) for row in place.rows]
        return [PerRow(tuple(map(rolled_back, column))) for column in zip_longest(*rows)]

    def _entry(self, row: int, place: BatchRows) -> tuple[LogitsProcessor, ...]:
        prompt = place.prompt(row)
        found = processors_in(self._make(prompt), f"logits_processor_by_prompt, prompt {prompt}")
        for processor in found:
            _, owner = self._owners.setdefault(id(processor), (processor, row))
            if owner != row and type(processor) not in (*BY_PREFIX, *SET_BASED):
                other = place.prompt(owner)
                whose = (
                    f"prompts {other} and {prompt}"
                    if other != prompt
                    else f"several texts of prompt {prompt}"
                )
                raise OptionError(
                    f"logits_processor_by_prompt has one {named(processor)} for {whose}: make one "
                    "for each, in a function of the prompt's index. One that keeps nothing between "
                    "calls can be wrapped: lambda prompt: functools.partial(processor)"
                )
        return found


def stages(processors: Sequence[LogitsProcessor], place: BatchRows) -> list[Stage]:
    """How processors that were given for all prompts are called on a batch.

    Raises:
        OptionError: one that several prompts cannot share.
    """
    flat = [inner for processor in processors for inner in _flat(processor)]
    shared = Shared([p for p in flat if _copied(p, place)], place.total)
    copies = [shared.copies(row) for row in place.rows] if shared.originals else []
    order = iter(zip(*copies, strict=True))
    found: list[Stage] = []
    for processor in flat:
        stage = Stage.of(processor)
        if _copied(processor, place):
            stage = PerRow(next(order))
        elif place.total > 1 and isinstance(processor, Forks):
            stage = PerRow(tuple(rolled_back(_forked(processor)) for _ in place.rows))
        elif type(processor) is hf.PrefixConstrainedLogitsProcessor:
            allowed = processor._prefix_allowed_tokens_fn
            own = [_constrained(allowed, place.prompt(row)) for row in place.rows]
            stage = PerRow(tuple(own))
        stage = _on_shown(stage, place.shown) if place.shown else stage
        found.append(_on_device(stage, place.device) if place.device else stage)
    return found


def _forked(processor: Forks) -> LogitsProcessor:
    """What a processor returns as its double."""
    fork = processor.fork()
    if fork is None or isinstance(fork, (list, tuple)):
        raise OptionError(
            f"{named(processor)}.fork() must return one logits processor, not "
            f"{type(fork).__name__}: another one in the same state, which goes on by itself"
        )
    (found,) = processors_in(fork, f"{named(processor)}.fork()")
    return found


def _on_shown(stage: Stage, shown: Sequence[ShownPrompt]) -> Stage:
    """A stage whose processors see the prompts as they are to be shown."""
    if not isinstance(stage, (PerRow, SetBased)):
        return stage
    alike = stage.processors if isinstance(stage, PerRow) else (stage.processor,)
    if len(alike) == 1:
        alike *= len(shown)
    own = zip(alike, shown, strict=True)
    return PerRow(tuple(processor and OnShownPrompt(processor, one) for processor, one in own))


def _on_device(stage: Stage, device: torch.device) -> Stage:
    """A stage whose processors work on a device of their own."""
    if not isinstance(stage, (PerRow, SetBased, PrefixFree)):
        return stage
    alike = stage.processors if isinstance(stage, PerRow) else (stage.processor,)
    return PerRow(tuple(each and OnDevice(each, device) for each in alike))


def _flat(processor: LogitsProcessor) -> Iterator[LogitsProcessor]:
    """The processors in a list of transformers', which is a processor too."""
    if type(processor) is not hf.LogitsProcessorList:
        yield processor
        return
    for inner in processors_in(list(processor)):
        yield from _flat(inner)


def _copied(processor: LogitsProcessor, place: BatchRows) -> bool:
    """Whether every prompt has a copy of its own."""
    kind = type(processor)
    if place.total == 1 or kind in BY_PREFIX or kind is hf.PrefixConstrainedLogitsProcessor:
        return False
    if isinstance(processor, Forks):
        return False
    return kind not in SET_BASED or isinstance(processor.prompt_ignore_length, Tensor)


def _constrained(
    allowed: Callable[[int, Tensor], list[int]], prompt: int
) -> hf.PrefixConstrainedLogitsProcessor:
    """The same constraint for a call with one row, whose index for the function is ``prompt``."""
    return hf.PrefixConstrainedLogitsProcessor(lambda _, tokens: allowed(prompt, tokens), 1)
