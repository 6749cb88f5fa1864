"""Estimates of acceptance: draft tokens accepted per expected one, and the yield of a drafter."""

from __future__ import annotations

from specdec.drafting.calibration import Prior

# Steps that evidence counts for: it fades by one part in LASTING with every later
# step. Long enough to average over the tokens of a sentence or two, short enough to follow a text.
LASTING = 50
# Steps that what is believed when a text begins counts for (expected tokens for prompt lookup):
# little enough that a text which differs from others is found out within it.
BELIEVED = 8.0
# What a step with a drafter is taken to bring before the first: expected draft tokens, levels
# grown, draft tokens verified. Large enough that a drafter is tried on any usual machine.
FIRST_YIELD = (2.5, 4.0, 10.0)


# (s, b) by kind of draft, fitted once on the embedded model: at temperature 0 a draft distribution
# trained by cross-entropy is too flat for an argmax; under coupling the noise decides most of the
# draw. Without unit.
PRIORS = {
    "greedy": Prior(temperature=0.53, log_weight_of_others=-6.0),
    "coupled": Prior(temperature=0.78, log_weight_of_others=-1.6),
    "sampled": Prior(temperature=0.9, log_weight_of_others=-1.6),
}


def prior_at(temperature: float, *, greedy: bool, coupled: bool) -> Prior:
    """The prior of a sampling setting: of coupled drafts on the line from an argmax to temperature
    1, as the noise decides the less the colder it is."""
    if not coupled:
        return PRIORS["greedy" if greedy else "sampled"]
    cold, warm, share = PRIORS["greedy"], PRIORS["coupled"], min(1.0, temperature)
    return Prior(
        cold.temperature + share * (warm.temperature - cold.temperature),
        cold.log_weight_of_others + share * (warm.log_weight_of_others - cold.log_weight_of_others),
    )


class Estimate:
    """Means of some amounts per unit of weight: sums that fade.

    Within a text they fade by the step, whether or not there was an observation, so that after a
    pause one observation decides. A text begins with the means over the texts before it, which fade
    in the same way, each text like the observations that its beginning counts for.

    Args:
        means: before the first observation; they count like one text.
    """

    def __init__(self, *means: float) -> None:
        self._earlier_texts = [BELIEVED * mean for mean in (1.0, *means)]
        self._this_text = [0.0] * len(self._earlier_texts)
        self.begin()

    def begin(self, rows: int = 1) -> None:
        """A text begins, or several: one a row."""
        if self._this_text[0]:
            # It counts in full from as much on as is believed at its beginning.
            counts = min(BELIEVED * rows, self._this_text[0])
            fading, scale = (1 - 1 / LASTING) ** counts, counts / self._this_text[0]
            self._earlier_texts = [
                fading * old + scale * new
                for old, new in zip(self._earlier_texts, self._this_text, strict=True)
            ]
        self._this_text = [0.0] * len(self._earlier_texts)
        self._sums = [BELIEVED * old / self._earlier_texts[0] for old in self._earlier_texts]

    def absorb(self, other: Estimate, rows: int) -> None:
        """Take in the text of a copy, which has ended."""
        self._this_text = other._this_text
        self.begin(rows)

    def take(self, weight: float, *amounts: float) -> None:
        """One observation: amounts that came of so much weight."""
        self._sums = [old + x for old, x in zip(self._sums, (weight, *amounts), strict=True)]
        self._this_text = [
            old + x for old, x in zip(self._this_text, (weight, *amounts), strict=True)
        ]

    def fade(self) -> None:
        """A step has passed."""
        if self._sums[0] > 1e-3:  # it is little sure by then, and never of nothing
            self._sums = [old - old / LASTING for old in self._sums]

    @property
    def means(self) -> list[float]:
        """Of each amount, per unit of weight."""
        weight, *amounts = self._sums
        return [amount / weight for amount in amounts]


class AcceptanceEstimates:
    """What was seen to be accepted, of one sampling setting and about one batch size.

    Attributes:
        values: draft tokens that the values of a row's tree expect, and those accepted.
        lookup: draft tokens accepted per token that the prompt-lookup chain expects, of trees that
            hold nothing else.
        drafter: what a row's step with a drafter yields: draft tokens that its tree expects,
            levels grown, draft tokens verified.
    """

    def __init__(self) -> None:
        tokens = FIRST_YIELD[0]
        self.values, self.lookup = Estimate(tokens, tokens), Estimate(1.0)
        self.drafter = Estimate(*FIRST_YIELD)

    def begin(self, rows: int) -> None:
        """A text begins, or several: one a row."""
        for estimate in (self.values, self.lookup, self.drafter):
            estimate.begin(rows)

    def absorb(self, other: AcceptanceEstimates, rows: int) -> None:
        """Take in the text of a copy, which has ended."""
        self.values.absorb(other.values, rows)
        self.lookup.absorb(other.lookup, rows)
        self.drafter.absorb(other.drafter, rows)

    def fade(self) -> None:
        """A step has passed."""
        for estimate in (self.values, self.lookup, self.drafter):
            estimate.fade()
