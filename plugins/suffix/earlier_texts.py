"""Earlier texts: what an engine has written, indexed within a bound of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

from specdec_plugins.suffix.suffix_index import SuffixIndex

# Generations of an engine may end at the same time, in threads of their own. One that was left ends
# when Python collects it, and that may be while another one of the same thread changes the texts.
_CHANGING = RLock()


class EarlierTexts:
    """The latest texts that an engine has written, prompts left out.

    Args:
        most: tokens kept, of all texts together; the oldest texts leave first.
        longest: the most tokens that a match is looked for with.
    """

    def __init__(self, most: int, longest: int) -> None:
        self._most, self._kept, self._tokens = most, deque[tuple[int, ...]](), 0
        self._ended, self._changing = deque[tuple[int, ...]](), False
        self.index = SuffixIndex(longest)

    def forget(self) -> None:
        """Keep none of them. Generations that run draft from those that were known when they
        began."""
        with self._changes():
            self._ended.clear()
            self._kept.clear()
            self._tokens, self.index = 0, SuffixIndex(self.index.longest)

    def add(self, text: Sequence[int]) -> None:
        """A text has ended; of one that is too long its last tokens are kept."""
        self._ended.append(tuple(text[-self._most :]))
        with self._changes() as alone:
            while alone and self._ended:
                self._keep(self._ended.popleft())

    @contextmanager
    def _changes(self) -> Iterator[bool]:
        """Whether the texts may be changed now; they are being changed below this call if not."""
        with _CHANGING:
            alone, self._changing = not self._changing, True
            try:
                yield alone
            finally:
                self._changing = not alone

    def _keep(self, text: tuple[int, ...]) -> None:
        self._kept.append(text)
        self._tokens += len(text)
        self.index.add_text(text)
        while self._tokens > self._most:
            oldest = self._kept.popleft()
            self._tokens -= len(oldest)
            self.index.remove_text(oldest)
