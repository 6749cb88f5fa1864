"""Draft size by cost: how many of a step's draft tokens are worth the time to verify them."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence

from specdec.decoding.clock import StepSeconds
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.drafting.seconds_by_size import SecondsBySize, break_even_tokens, length_bucket

# Steps without a plain one after which two plain steps are measured anew.
_RENEW = 128
# Of all seconds, the share that steps may lose which try again what once seemed not to pay.
_SHARE = 0.005
# What is known, one thread at a time. No attribute: what is learned is copied.
_CHANGING = threading.Lock()


class DraftSizeByCost:
    """Chooses the number of draft tokens that a step verifies, from what steps took before.

    Verifying n draft tokens a row brings ``gains[n]`` expected tokens more than verifying none, and
    takes ``seconds(n + 1) / seconds(1)`` times as long, in which plain decoding commits as many
    tokens a row. The n is chosen that brings most beyond that; 0 where none brings more. So a
    strategy without a network is about as fast as plain decoding where nothing can be expected.

    Made once with a drafter. Seconds are kept by batch size and length of the texts. What is
    chosen depends on the clock, so a drafter with one is not ``depends_on_own_row_only``: it is
    allowed only with a ``seed_exact`` acceptor. For other acceptors the drafter needs an option
    that turns it off, declared in ``Component.repeatable``.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, int], _Seconds] = {}

    def count(self, gains: Sequence[float], state: State, least: int = 0) -> int:
        """The number of draft tokens to verify in each row of ``state``.

        Args:
            gains: for n = 1, 2, ... the sum of the probabilities that draft tokens 1 to n are
                accepted, over all rows.
            least: a tree with draft tokens is filled up to this number.
        """
        if not gains:
            return 0
        unfinished = sum(reason is None for reason in state.finish_reasons)
        with _CHANGING:
            return self._of(state).count(gains, unfinished, least)

    def learn(self, step: Step, seconds: StepSeconds, state: State) -> None:
        """A step has been committed to ``state``, drafted or plain."""
        with _CHANGING:
            self._of(state).take(step.tree.size, seconds.verify + seconds.other)

    def _of(self, state: State) -> _Seconds:
        """What is known of a batch size and a length; at first that of the nearest, at most a
        doubling of the batch away."""
        rows = state.rows
        key = rows, length_bucket(state.longest)
        if key not in self._seconds:
            near = [
                (abs(math.log2(size / rows)), abs(length - key[1]), (size, length))
                for size, length in self._seconds
                if 0.5 <= size / rows <= 2
            ]
            if near:
                self._seconds[key] = self._seconds[min(near)[-1]].for_rows(rows)
            else:
                self._seconds[key] = _Seconds(rows, break_even_tokens(state.tokens.device))
        return self._seconds[key]


class _Seconds:
    """Of steps of one batch size and about one length."""

    def __init__(self, rows: int, break_even: int) -> None:
        self._curve = SecondsBySize(rows, break_even)
        self._nodes = self._since_plain = 0
        self._to_lose = 0.0

    def for_rows(self, rows: int) -> _Seconds:
        """A copy for a batch of another size."""
        made = copy.deepcopy(self)
        made._curve.rows = rows
        return made

    def take(self, nodes: int, seconds: float) -> None:
        before, self._nodes = self._nodes, nodes
        self._since_plain += 1
        self._to_lose += _SHARE * seconds
        # What lies in the processor's cache depends on the step before: a plain step counts only
        # after another one.
        if nodes > 1 or before == 1:
            self._curve.take(nodes, seconds)
            self._since_plain = 0 if nodes == 1 else self._since_plain

    def count(self, gains: Sequence[float], unfinished: int, least: int) -> int:
        curve, plain = self._curve, self._curve.sizes.get(1)
        if plain is None or not plain.known or self._since_plain >= _RENEW:
            return 0
        once = curve.seconds(1)

        def worth(number: int) -> float:
            extra = curve.seconds(max(number, least) + 1) / once - 1
            return gains[number - 1] - unfinished * extra

        def worth_as_guessed(number: int) -> float:
            extra = curve.guess(max(number, least) + 1) / curve.guess(1) - 1
            return gains[number - 1] - unfinished * extra

        numbers = range(1, len(gains) + 1)
        best = max(numbers, key=worth)
        if worth(best) > 0:
            return best
        best = max(numbers, key=worth_as_guessed)
        loss = -worth(best) / unfinished * once
        if worth_as_guessed(best) > 0 and loss <= self._to_lose:
            self._to_lose -= loss
            return best
        return 0
