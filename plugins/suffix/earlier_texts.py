"""Earlier texts: what an engine has written, indexed within a bound of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Lock

from specdec_plugins.suffix.suffix_index import SuffixIndex

# Generations of an engine may end at the same time, in threads of their own.
_CHANGING = Lock()


class EarlierTexts:
    """The latest texts that an engine has written, prompts left out.

    Args:
        most: tokens kept, of all texts together; the oldest texts leave first.
        longest: the most tokens that a match is looked for with.
    """

    def __init__(self, most: int, longest: int) -> None:
        self._most, self._kept, self._tokens = most, deque[tuple[int, ...]](), 0
        self._left = deque[tuple[int, ...]]()
        self.index = SuffixIndex(longest)

    def forget(self) -> None:
        """Keep none of them. Generations that run draft from those that were known when they
        began."""
        with _CHANGING:
            self._left.clear()
            self._kept.clear()
            self._tokens, self.index = 0, SuffixIndex(self.index.longest)

    def add(self, text: Sequence[int]) -> None:
        """A text has ended; of one that is too long its last tokens are kept."""
        self.leave(text)
        self.take_in()

    def leave(self, text: Sequence[int]) -> None:
        """A text was left: it is kept from the next :meth:`take_in` on.

        Python may collect its generation at any time, in the middle of reading the index too.
        """
        self._left.append(tuple(text[-self._most :]))

    def take_in(self) -> None:
        """Keep the texts that were left."""
        with _CHANGING:
            while self._left:
                self._keep(self._left.popleft())

    def _keep(self, text: tuple[int, ...]) -> None:
        self._kept.append(text)
        self._tokens += len(text)
        self.index.add_text(text)
        while self._tokens > self._most:
            oldest = self._kept.popleft()
            self._tokens -= len(oldest)
            self.index.remove_text(oldest)
