"""A pace by measured costs: whether to draft at all, and what a step took and brought."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

from specdec.decoding.clock import Clock
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.drafting.network_drafter import MOST_UNREAD as UNREAD
from specdec_plugins.auto.costs import Costs, doublings
from specdec_plugins.auto.pace import PLAIN, Pace, Plan
from specdec_plugins.auto.record import MARGIN, Record

# After so many steps with drafts one of plain decoding is measured again.
_COMPARED = 40
# Steps in which a text suggested nothing of use; after them, while drafts are, it is asked in one
# of so many.
_PATIENCE, _SELDOM = 8, 4
# Where neither drafts nor the text pay, nothing is asked or measured for so many steps.
_REST = 15
# By batch size and length of the texts.
Books = Callable[[int, int], tuple[Costs, Record]]


class Economy(Pace):
    """Drafting stops where it brings fewer tokens a second than plain decoding.

    It is tried again when that is likely to lose a small share of the time since. Where the drafter
    has to read a long prompt first and the text has not much room, it is not drafted.

    Args:
        most: the largest plan.
        books: costs and record of a batch size, at a length in doublings.
        grows: whether there is a drafter; if not, the text itself is asked alone.

    Attributes:
        rows: unfinished ones.
        started: :meth:`seconds` when the step before was over; None in the first step, before which
            other things were timed.
        unread: committed tokens a row that the drafter has not read.
    """

    costs: Costs
    record: Record
    started: float | None = None
    _opened: tuple[int, int] | None = None
    _rest: int = 0
    _suggested: float

    def __init__(
        self, most: Plan, books: Books, state: State, clock: Clock, grows: bool = True
    ) -> None:
        self.most, self.state, self.clock, self._books = most, state, clock, books
        self._grows = grows
        lengths = zip(state.host_lengths, state.cached, strict=True)
        self.unread, self._waiting = max(length - cached for length, cached in lengths), 0
        self._open(state.rows)
        self._prepare()

    @abstractmethod
    def drafts(self) -> Plan:
        """The plan of a step that drafts."""

    @abstractmethod
    def trial(self) -> Plan:
        """The plan of a step that finds out whether drafts would pay again."""

    @abstractmethod
    def lengths(self, longest: int) -> Iterable[int]:
        """How much of a text's own suggestion may be verified, if it has so many tokens."""

    @abstractmethod
    def take(self, step: Step, levels: int) -> None:
        """Take in what a step cost and, if it drafted, what it brought."""

    @property
    def speedup(self) -> float:
        """Tokens a second that drafts are expected to bring, over plain decoding's."""
        return self.record.speedup

    def asks_text(self) -> bool:
        if self._rest or not self.plain_known or self.record.trying:
            return False
        hopes, self.record.untold = self._hopes, self.record.untold + 1
        return hopes or not self.plan.depth or self.record.untold % _SELDOM == 0

    def from_text(self, chances: Sequence[Sequence[float]]) -> int:
        best, length = max(MARGIN, self.speedup if self.plan.depth else 0.0), 0
        for choice in self.lengths(max(map(len, chances))):
            promised = sum(sum(own[:choice]) for own in chances)
            tokens = 1 + self.record.text.factor * promised / self.rows
            brought = tokens * self.costs.plain / self.costs.verify(choice + 1)
            if brought > best:
                best, length, self._suggested = brought, choice, promised
        if length:
            self.plan = Plan(0, length)
        return length

    @property
    def _hopes(self) -> bool:
        """Whether texts have not been asked in vain for long."""
        return self.record.untold < _PATIENCE

    @property
    def plain_known(self) -> bool:
        """Whether it was measured lately what drafting is compared with."""
        return self.costs.plain_known and self.costs.unchecked < _COMPARED

    def seconds(self) -> float:
        """Of all phases so far; the one that runs is added at its end."""
        return sum(self.clock.seconds.values())

    def charge(self, step: Step, levels: int, drafting: float) -> None:
        """Tell the record what a step with drafts lost against plain decoding. What drafting took
        counts up to twice what is usual, as a machine may stutter."""
        if any(step.finished):
            return
        usual = self.costs.draft(levels) + self.costs.read(self.unread)
        plainly = sum(map(len, step.new_tokens)) / self.rows * self.costs.plain
        self.record.lost(min(drafting, 2 * usual) + self.costs.verify(step.tree.size) - plainly)

    def commit(self, step: Step, levels: int) -> None:
        rested, self._rest = self._rest > 0, max(0, self._rest - 1)
        if not self._rest:
            self._open(len(step.new_tokens))
        if rested:
            self._wait()
        else:
            self._judge(step, levels)
        if self._waiting + step.longest > UNREAD:
            self.unread = self._waiting = 0  # the drafter reads them unasked
        self.unread += step.longest
        self._waiting += step.longest
        if self._rest:
            return
        self._prepare()
        if self.plan == PLAIN and self.plain_known and not (rested or self._hopes):
            self._rest = _REST
        self.started = self.seconds()

    def _judge(self, step: Step, levels: int) -> None:
        """What to learn from a step."""
        self.take(step, levels)
        if self._suggested and not any(step.finished):
            self.record.text.take(sum(step.accepted) / self.rows, self._suggested / self.rows)
        if self._suggested:
            self.record.untold = 0
        if self.plan.depth:
            self.unread = self._waiting = 0
        else:
            self._wait()

    def _wait(self) -> None:
        if not self.record.drafting:
            self.record.waited(self.costs.plain)

    def _open(self, batch: int) -> None:
        books = batch, doublings(self.state.longest)
        if books != self._opened:
            before = self.record if self._opened else None
            self._opened = books
            self.costs, self.record = self._books(*books)
            if self.record is not before:
                self.record.begin()
                self.record.untold = min(self.record.untold, _PATIENCE - 1)

    def _prepare(self) -> None:
        self.rows = sum(reason is None for reason in self.state.finish_reasons)
        self.plan, self._suggested = self._next(), 0.0

    def _next(self) -> Plan:
        costs, record = self.costs, self.record
        if not self._grows or not self.plain_known or self.state.room == 0:
            return PLAIN
        reading = costs.read(self.unread)
        if not record.drafting and not record.tries(reading, costs.draft(1)):
            return PLAIN
        saved = self.state.room * costs.plain * (1 - MARGIN / max(MARGIN, self.speedup))
        if record.trying:
            return self.trial()
        return self.drafts() if saved >= reading else PLAIN
