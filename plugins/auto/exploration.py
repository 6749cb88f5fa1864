"""How many seconds may be spent on steps that are expected to be slower than the best known."""

from __future__ import annotations

# Of all seconds of decoding, the share that may be lost.
SHARE = 0.01
# What drafting has gained may be lost again, up to the seconds of so many plain steps: about what a
# drafter that gains a fifth loses in an unlucky stretch.
MOST_PLAIN_STEPS = 4.0


class Exploration:
    """The seconds that may be lost now: the only source of steps that are expected to lose.

    They are a share :data:`SHARE` of all seconds of decoding, and what steps with a drafter have
    gained over plain ones, of which at most :data:`MOST_PLAIN_STEPS` are kept. So a drafter that
    gains is not given up for an unlucky stretch, and one that never does loses that share. One
    balance serves all generations of an engine; each may have a trial under way.

    Source: conservative bandits (Wu et al. 2016, arXiv 1602.04282), plain decoding being the choice
    against which losses are bounded.

    Attributes:
        seconds: that may be lost now; negative where more was lost.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def earn(self, seconds: float) -> None:
        """Decoding took ``seconds``."""
        self.seconds += SHARE * seconds

    def affords(self, loss: float) -> bool:
        """Whether a step may be taken that is expected to lose ``loss`` seconds."""
        return self.seconds >= loss

    def charge(self, loss: float) -> None:
        """A step has lost ``loss`` seconds."""
        self.seconds -= max(0.0, loss)

    def starts_trial(self, loss: float, plain: float) -> bool:
        """Whether a step with a drafter may be taken that is expected to lose ``loss`` seconds.

        If so, savings beyond :data:`MOST_PLAIN_STEPS` end: they would pay for many losses in a row.

        Args:
            plain: seconds of a plain step.
        """
        affords = self.affords(loss)
        if affords:
            self.seconds = min(self.seconds, max(MOST_PLAIN_STEPS * plain, loss))
        return affords

    def drafted(self, gain: float, plain: float, *, explores: bool) -> None:
        """A step with a drafter has gained so many seconds over plain ones, or lost them.

        Args:
            plain: seconds of a plain step.
            explores: it was expected to lose; what another one loses is no debt.
        """
        after = self.seconds + gain
        if not explores:
            after = max(after, min(self.seconds, 0.0))
        self.seconds = min(after, max(self.seconds, MOST_PLAIN_STEPS * plain))
