"""Shared processors: of unknown kind, for several prompts, each with a copy and a row."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.generation import logits_process as hf

from specdec.errors import OptionError, SpecdecError, out_of_memory, warn
from specdec.request.copying import copied
from specdec.request.processor_stages import named

# From here on a processor that is called with a row for every prompt is worth a warning.
MANY = 64
# The number of calls that are tried beside other texts: some processors read new tokens alone.
_TRIED = 3
EACH = (
    "Give one for each prompt, for instance logits_processor_by_prompt=lambda prompt: "
    "make_processor(), where prompt is the index of the prompt"
)


class Shared:
    """Processors of unknown kind that were given for several prompts.

    Args:
        originals: in the order in which they apply. They are not called.
        total: prompts of the call.

    Raises:
        OptionError: one that serves one prompt at a time.
    """

    def __init__(self, originals: list[LogitsProcessor], total: int) -> None:
        self.originals, self.total = originals, total
        self._looks = [False] * len(originals)
        for processor in originals:
            if isinstance(processor, hf.UnbatchedClassifierFreeGuidanceLogitsProcessor):
                raise OptionError(
                    f"the logits processor {named(processor)} reads a text of its own with a model "
                    f"and cannot serve {total} prompts: decode them one at a time"
                )
        if originals and total > MANY:
            names = ", ".join(map(named, originals))
            warn(
                f"logits processors of unknown kind ({names}) may depend on the row, so they are "
                f"called with {total} rows for each token of each row, one for every prompt. "
                "One that depends on the prefix alone is faster as "
                "logits_processor_by_prompt=lambda prompt: functools.partial(processor)"
            )

    def copies(self, row: int) -> list[OwnCopy]:
        """What the row of that index has of each; they are copied together, so that what they
        have in common stays in common.

        Raises:
            OptionError: one cannot be copied.
        """
        try:
            on_all_rows, on_one_row, beside_others = (copied(self.originals) for _ in range(3))
        except Exception as error:
            if out_of_memory(error):
                raise
            why = f"it may keep state between calls, and cannot be copied for each ({error})"
            raise self.refusal(" or ".join(map(named, self.originals)), why) from error
        each = enumerate(zip(on_all_rows, on_one_row, beside_others, strict=True))
        return [OwnCopy(self, index, row, *own) for index, own in each]

    def looks(self, index: int, changed: bool) -> bool:
        """Whether a processor has ever changed a row behind the first; ``changed``: this time."""
        self._looks[index] |= changed
        return self._looks[index]

    def refusal(self, name: str, why: str) -> OptionError:
        """An error that says why the prompts cannot share a processor, and what to do."""
        return OptionError(
            f"the logits processor {name} cannot serve {self.total} prompts: {why}. {EACH}"
        )


class OwnCopy:
    """What one prompt has of a processor that was given for several.

    Transformers calls a processor with a row for each prompt, and it may treat row i in a way of
    its own. Rows are at different lengths here, so each has a copy, which is called with its prefix
    in every row; the row of the prompt counts. Beside it a second copy is called with the prefix
    alone: what does not depend on the row is then bit for bit what the prompt would get alone, and
    a processor that mixes rows, or that keeps state where no copy reaches, is distinguished from
    one that does not. At the first calls a third copy is called with other texts and scores in the
    other rows: its row must not change.

    Args:
        index: of the processor among the shared ones.
        prompt: index of the prompt.
        on_all_rows, on_one_row, beside_others: the copies, by what each is called with.
    """

    def __init__(
        self,
        shared: Shared,
        index: int,
        prompt: int,
        on_all_rows: Any,
        on_one_row: Any,
        beside_others: Any,
    ) -> None:
        self._shared, self._index, self._prompt = shared, index, prompt
        self._on_all_rows, self._on_one_row = on_all_rows, on_one_row
        self._beside_others = beside_others
        self.__name__ = named(shared.originals[index])
        self._called, self._tried = False, 0

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """Processed scores ``[1, V]`` of the one prefix ``tokens [1, n]``.

        Raises:
            OptionError: the processor cannot be shared.
        """
        total = self._shared.total
        alone = self._run_on_one_row(tokens.clone(), scores.clone())
        try:
            rows = self._on_all_rows(tokens.repeat(total, 1), scores.repeat(total, 1))
        except Exception as error:
            self._raise(error, f"called with {total} rows, as transformers would")
        if not isinstance(rows, Tensor) or rows.shape != (total, scores.shape[1]):
            raise self._refusal(f"it must return scores {[total, scores.shape[1]]}")
        own, first = rows[self._prompt, None], rows[:1]
        if alone is not None and not torch.allclose(alone, first, 1e-4, 1e-4, equal_nan=True):
            raise self._refusal(
                "it gives a text other scores beside others than alone, so it mixes rows, or "
                "keeps state where a copy shares it"
            )
        if self._beside_others is not None and not self._same_beside_others(tokens, scores, own):
            raise self._refusal("it gives a text other scores beside other texts, so it mixes rows")
        self._called = True
        looks = self._shared.looks(self._index, changed=bool((rows[1:] != scores).any()))
        if torch.equal(own, first):
            return first if alone is None else alone
        if alone is not None and not looks:
            raise self._refusal(
                "it changes the first row alone, so it was written for one prompt, or means the "
                "first alone"
            )
        return own

    def _same_beside_others(self, tokens: Tensor, scores: Tensor, own: Tensor) -> bool:
        """Whether the row of the prompt stays as it is if the others have other texts and scores;
        so too if the processor cannot take these, as a grammar may not."""
        beside_others, self._tried = self._beside_others, self._tried + 1
        if self._tried == _TRIED:
            self._beside_others = None
        total, vocab = self._shared.total, scores.shape[1]
        others = [row - self._prompt for row in range(total)]
        texts = torch.cat([(tokens + shift) % vocab for shift in others])
        values = torch.cat([scores.roll(shift, dims=1) + shift for shift in others])
        try:
            rows = beside_others(texts, values)
        except Exception as error:
            if out_of_memory(error):
                raise
            self._beside_others = None
            return True
        if not isinstance(rows, Tensor) or rows.shape != values.shape:
            return True
        return torch.allclose(rows[self._prompt, None], own, 1e-4, 1e-4, equal_nan=True)

    def _run_on_one_row(self, tokens: Tensor, scores: Tensor) -> Tensor | None:
        """What the prompt would get alone; None if the processor is made for all prompts."""
        if self._on_one_row is None:
            return None
        try:
            processed = self._on_one_row(tokens, scores)
        except Exception as error:
            if self._called or out_of_memory(error):
                self._raise(error, "called with one row")
        else:
            if isinstance(processed, Tensor) and processed.shape == scores.shape:
                return processed
        self._on_one_row = None
        return None

    def _raise(self, error: Exception, when: str) -> NoReturn:
        """Say what an error of the processor's own means here."""
        if out_of_memory(error) or isinstance(error, SpecdecError):
            raise error
        said = f": {error}" if str(error) else ""
        raise self._refusal(f"{when}, it raised {type(error).__name__}{said}") from error

    def _refusal(self, why: str) -> OptionError:
        return self._shared.refusal(self.__name__, why)
