"""What drafting has brought so far, whether it goes on, and when it is tried again."""

from __future__ import annotations

import copy

# What drafting brings in a text fades by this factor a step. It starts from what it brought in
# texts before, believed like so many steps of plain decoding of one row: several rows tell as much
# in fewer.
_FADING, _BELIEVED = 0.97, 20.0
# What it is taken to have brought before the first text, believed like so many texts. A text counts
# in full from so many steps on, and fades by this factor with each that comes after it.
_START, _TEXTS, _WHOLE, _FORGOTTEN = 1.2, 2.0, 40.0, 0.9
# Drafting has to be so much faster to begin: what it costs is not known to a per cent, and what the
# drafter has to read first comes on top. It goes on until it is hardly faster: texts differ, and to
# begin again takes long.
MARGIN, _LEAST = 1.1, 1.04
# Steps of shapes whose cost was not known that are not judged.
_EXCUSED = 8
# Steps of a try.
_TRIES = 2
# Seconds lost in tries over seconds of plain decoding: at first, the factor for every try that
# failed, and after how many no more. A new text takes back a part of a failure.
_SHARE, _FAILED, _FAILURES, _FORGIVEN = 0.02, 0.7, 5, 0.2
# Promised and accepted draft tokens fade by this factor a step, from a start that weighs as many.
_SLOWLY, _WEIGHT = 0.99, 6.0
_LARGEST_TRUST = 1.25


class Trust:
    """How promises of accepted draft tokens are kept."""

    def __init__(self) -> None:
        self._promised = self._accepted = _WEIGHT

    @property
    def factor(self) -> float:
        """Draft tokens that were accepted over those that were promised."""
        return min(_LARGEST_TRUST, self._accepted / self._promised)

    def take(self, accepted: float, promised: float) -> None:
        """Take in what came of a step's promises."""
        self._promised += promised - (1 - _SLOWLY) * (self._promised - _WEIGHT)
        self._accepted += accepted - (1 - _SLOWLY) * (self._accepted - _WEIGHT)

    def begin(self) -> None:
        """A new text begins: half of what was learned counts."""
        self._promised = (self._promised + _WEIGHT) / 2
        self._accepted = (self._accepted + _WEIGHT) / 2


class Record:
    """Of one sampling setting and batch size, over all texts.

    Tokens are those that values promise, corrected by how such promises were kept: they are less
    noisy than the few that are accepted in a step.

    Attributes:
        drafting: whether drafting pays, as far as it is known.
        values: how values keep what they promise.
        text: how drafts from the text itself do.
        untold: steps in which texts could be asked, since they last suggested something of use.
    """

    def __init__(self, rows: int = 1) -> None:
        self.drafting = self._begun = True
        self._rows, self._mean, self._texts = rows, _START, _TEXTS
        self._start()
        self._failures = self._saved = 0.0
        self._tries = self._excused = self.untold = 0
        self.values, self.text = Trust(), Trust()

    @property
    def speedup(self) -> float:
        """Tokens of the steps with drafts over those of plain decoding in the same time."""
        return self._tokens / self._steps

    @property
    def trying(self) -> bool:
        """Whether a try is under way."""
        return self._tries > 0

    @property
    def _bar(self) -> float:
        """The speedup that drafting has to reach."""
        return _LEAST if self._begun else MARGIN

    def begin(self) -> None:
        """A new text begins, or what rows have left of a batch: drafting, for which it has to be
        read, begins if it paid in texts before on the whole. It may be of another kind, so it is
        tried sooner."""
        if self._own_steps:
            new = self._rows * min(1.0, self._own_steps / _WHOLE)
            old = _FORGOTTEN**new * self._texts
            mean = (old * self._mean + new * self._own_tokens / self._own_steps) / (old + new)
            self._mean, self._texts = mean, old + new
        self._start()
        self._tries, self.drafting = 0, self.speedup > MARGIN
        self._begun = self.drafting
        self._failures = max(0.0, self._failures - _FORGIVEN)
        self.text.begin()

    def another(self, rows: int) -> Record:
        """The same experience, for a batch of another size that is about to :meth:`begin`: what was
        saved stays here."""
        made = copy.deepcopy(self)
        made._rows, made._saved = rows, 0.0
        made._own_tokens = made._own_steps = 0.0
        return made

    def _start(self) -> None:
        """What texts before have taught of the one that begins."""
        self._steps = _BELIEVED / self._rows
        self._tokens = self._mean * self._steps
        self._own_tokens = self._own_steps = 0.0

    def brought(self, tokens: float, steps: float, *, new: bool = False) -> None:
        """Take in a step with drafts: go on, or decode plainly for a while.

        A step that paid by itself is followed by another, whatever was before.

        Args:
            tokens: for each row, promised and corrected, the bonus token included.
            steps: what it cost, in steps of plain decoding.
            new: whether its shape was chosen before it was known what that costs: of such steps the
                first ones are not judged.
        """
        if new and self._excused < _EXCUSED:
            self._excused += 1
            return
        self._tokens = _FADING * self._tokens + tokens
        self._steps = _FADING * self._steps + steps
        self._own_tokens, self._own_steps = self._own_tokens + tokens, self._own_steps + steps
        pays = self.speedup > self._bar
        self._tries = max(0, self._tries - 1)
        if pays:
            self.drafting = self._begun = True
            self._failures, self._saved = 0.0, min(0.0, self._saved)
        else:
            self._begun = False
            self.drafting = tokens > MARGIN * steps or self._tries > 0

    def lost(self, seconds: float) -> None:
        """A step with drafts took so much longer than plain decoding of what it committed: if it
        was a try, the next one waits until that is made up for."""
        if self.speedup <= self._bar:
            self._saved -= max(0.0, seconds)

    def waited(self, seconds: float) -> None:
        """A step of plain decoding took so long."""
        self._saved += _SHARE * _FAILED**self._failures * seconds

    def tries(self, reading: float, level: float) -> bool:
        """Whether it is time to try again, in a few steps, after a pause.

        What was known before counts no more than they will.

        Args:
            reading: seconds of the drafter's reading.
            level: seconds of drafting in one of these steps.
        """
        if self._saved < (needed := reading + _TRIES * level):
            return False
        self._saved = needed
        scale = min(1.0, _TRIES / self._steps)
        self._tokens, self._steps = scale * self._tokens, scale * self._steps
        self._begun = False
        self._tries, self._failures = _TRIES, min(_FAILURES, self._failures + 1)
        self.drafting = True
        return True
