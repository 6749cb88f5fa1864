"""Stop rules: eos, stop strings, the caller's criteria and length limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from specdec.errors import OptionError
from specdec.request.caller_processors import listed
from specdec.request.criteria import RowCriteria, is_of_time
from specdec.request.detokenizer import Detokenizer

FinishReason = Literal["eos", "length", "stop", "criteria", "time"]


def stop_strings_in(given: Any, origin: str = "stop") -> tuple[str, ...]:
    """What a caller gave as a stop string, or a list of them; none for None.

    Args:
        origin: the argument, for an error.

    Raises:
        OptionError: an empty string, one that no text has, or something else than strings.
    """
    strings = listed(given)
    if any(not isinstance(each, str) or not each for each in strings):
        raise OptionError(f"{origin} must be a non-empty string or a list of them, not {given!r}")
    for each in strings:
        if any("\ud800" <= character <= "\udfff" for character in each):
            raise OptionError(f"{origin} has half of a surrogate pair, which no text has: {each!a}")
    return tuple(strings)


@dataclass(frozen=True)
class StopRules:
    """When a row is finished: a function of its tokens alone, if the caller's criteria are.

    Attributes:
        eos: token ids that end a row; the token itself is kept.
        stop: strings that end a row at the token that completes one of them; special tokens are
            part of the text that they are looked for in.
        limits: for each row the most tokens it may have, prompt included.
        detokenizers: for each row the text of its new tokens, special ones included; empty when
            there is no ``stop``.
        criteria: for each row the caller's own; empty when there are none.
    """

    eos: tuple[int, ...]
    stop: tuple[str, ...]
    limits: Sequence[int]
    detokenizers: Sequence[Detokenizer]
    criteria: Sequence[RowCriteria] = ()

    def clip(
        self, row: int, length: int, tokens: list[int]
    ) -> tuple[list[int], FinishReason | None]:
        """The tokens of one step that the row keeps.

        Args:
            row: index of the row.
            length: tokens the row had before this step.
            tokens: what the step would commit.

        Returns:
            The kept tokens and why the row ends with them, None if it goes on.
        """
        room = self.limits[row] - length
        for count, token in enumerate(tokens[:room], start=1):
            if token in self.eos:
                return tokens[:count], "eos"
            if self.stop and self.detokenizers[row].push(token, self.stop):
                return tokens[:count], "stop"
            if self.criteria and (ended := self.criteria[row].push(token)):
                return tokens[:count], "time" if is_of_time(ended) else "criteria"
        if len(tokens) >= room:
            return tokens[:room], "length"
        return tokens, None

    def keep_rows(self, rows: Sequence[int]) -> StopRules:
        """The rules of some rows of the batch."""
        return replace(
            self,
            limits=[self.limits[row] for row in rows],
            detokenizers=[self.detokenizers[row] for row in rows] if self.detokenizers else (),
            criteria=[self.criteria[row] for row in rows] if self.criteria else (),
        )

    def ends(self, token: Tensor) -> Tensor:
        """Whether ``token [B]`` is an eos: ``[B]`` bool."""
        if not self.eos:
            return torch.zeros_like(token, dtype=torch.bool)
        ended = token == self.eos[0]
        for eos in self.eos[1:]:
            ended = ended | (token == eos)
        return ended
