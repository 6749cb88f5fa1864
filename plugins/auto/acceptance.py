"""Estimates of acceptance: draft tokens accepted per expected one, and the yield of a drafter."""

from __future__ import annotations

from collections.abc import Sequence

from specdec.drafting.calibration import Prior

# Steps that evidence counts for: it fades by one part in LASTING with every later step. Long enough
# to average over the tokens of a sentence or two, short enough to follow a text.
LASTING = 50
# Observations that what is believed when a text begins counts for (expected tokens for a text's
# suggestions): little enough that a text which differs from others is found out within it.
BELIEVED = 8.0
# What a step with a drafter is taken to bring before the first: draft tokens accepted, levels
# grown, draft tokens verified. Large enough that a drafter is tried on any usual machine.
FIRST_YIELD = (2.5, 4.0, 10.0)


# (s, b) by kind of draft, fitted once on the embedded model: at temperature 0 a draft distribution
# trained by cross-entropy is too flat for an argmax; under coupling the noise decides most of the
# draw. Without unit.
PRIORS = {
    "greedy": Prior(sharpness=0.53, others=-6.0),
    "coupled": Prior(sharpness=0.78, others=-1.6),
    "sampled": Prior(sharpness=0.9, others=-1.6),
}


def prior_at(temperature: float, *, greedy: bool, coupled: bool) -> Prior:
    """The prior of a sampling setting: of coupled drafts on the line from an argmax to temperature
    1, as the noise decides the less the colder it is."""
    if not coupled:
        return PRIORS["greedy" if greedy else "sampled"]
    cold, warm, share = PRIORS["greedy"], PRIORS["coupled"], min(1.0, temperature)
    return Prior(
        cold.sharpness + share * (warm.sharpness - cold.sharpness),
        cold.others + share * (warm.others - cold.others),
    )


class Estimate:
    """Means of some amounts per unit of weight, of this text and of those before it.

    In a text, mean = sum of amounts / sum of weights, where every step fades the sums before it by
    one part in :data:`LASTING`, whether or not there was an observation, so that after a long pause
    one observation decides. A text begins with the means over the texts before it, which count like
    :data:`BELIEVED` observations; over texts the same fading holds, each text counting like the
    observations that its beginning counts for.

    Args:
        means: before the first observation; they count like one text.
    """

    def __init__(self, *means: float) -> None:
        self._earlier_texts = [BELIEVED * mean for mean in (1.0, *means)]
        self._this_text = [0.0] * len(self._earlier_texts)
        self._faded = self._this_text
        self.begin()

    def begin(self, rows: int = 1) -> None:
        """A text begins, or several: one a row."""
        if weight := self._this_text[0]:
            # It counts in full from as much on as is believed at its beginning.
            counts = min(BELIEVED * rows, weight)
            fading, scale = (1 - 1 / LASTING) ** counts, counts / weight
            self._earlier_texts = _sum(
                [fading * old for old in self._earlier_texts],
                [scale * new for new in self._this_text],
            )
        self._this_text = [0.0] * len(self._this_text)
        self._faded = [BELIEVED * old / self._earlier_texts[0] for old in self._earlier_texts]

    def absorb(self, other: Estimate, rows: int) -> None:
        """Take in the text of a copy, which has ended."""
        self._this_text = other._this_text
        self.begin(rows)

    def take(self, weight: float, *amounts: float) -> None:
        """One observation: amounts that came of so much weight."""
        observed = (weight, *amounts)
        self._faded = _sum(self._faded, observed)
        self._this_text = _sum(self._this_text, observed)

    def fade(self) -> None:
        """A step has passed."""
        if self._faded[0] > 1e-3:  # it is little sure by then, and never of nothing
            self._faded = [old - old / LASTING for old in self._faded]

    @property
    def means(self) -> list[float]:
        """Of each amount, per unit of weight."""
        weight, *amounts = self._faded
        return [amount / weight for amount in amounts]


def _sum(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [x + y for x, y in zip(one, other, strict=True)]


class AcceptanceEstimates:
    """What was seen to be accepted, of one sampling setting and about one batch size.

    Attributes:
        values: draft tokens that the values of a row's tree expect, and those accepted.
        text: draft tokens accepted per token that the text's suggestion expects, of trees that
            hold nothing else.
        drafter: what a row's step with a drafter yields: draft tokens that its tree expects,
            levels grown, draft tokens verified.
    """

    def __init__(self) -> None:
        tokens = FIRST_YIELD[0]
        self.values, self.text = Estimate(tokens, tokens), Estimate(1.0)
        self.drafter = Estimate(*FIRST_YIELD)

    def begin(self, rows: int) -> None:
        """A text begins, or several: one a row."""
        for estimate in (self.values, self.text, self.drafter):
            estimate.begin(rows)

    def absorb(self, other: AcceptanceEstimates, rows: int) -> None:
        """Take in the text of a copy, which has ended."""
        self.values.absorb(other.values, rows)
        self.text.absorb(other.text, rows)
        self.drafter.absorb(other.drafter, rows)

    def fade(self) -> None:
        """A step has passed."""
        for estimate in (self.values, self.text, self.drafter):
            estimate.fade()
