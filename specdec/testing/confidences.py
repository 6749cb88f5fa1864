"""What the values of the policies that ship with specdec are made of, where it is not plainly q."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specdec.decoding.proposal import Proposal
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.coupling import couple

# The distribution whose probabilities a level's values are multiplied by, from its frontier's
# proposal.
Confidence = Callable[[TreeBuilder, Proposal], Proposal]


def draft_distribution(builder: TreeBuilder, proposal: Proposal) -> Proposal:
    """The draft distribution itself."""
    return proposal


def coupled(options: Any) -> Confidence | None:
    """The guess at the target's own draw where the options ask for it."""
    return couple if options.coupled else draft_distribution


def auto(options: Any) -> Confidence | None:
    """What is accepted is learned, unless that is off."""
    return None if options.calibrated else coupled(options)


# By the policy's name, from its options; None where it is learned and only the policy knows it.
CONFIDENCES: dict[str, Callable[[Any], Confidence | None]] = {
    "static_tree": coupled,
    "kary_tree": coupled,
    "chain": coupled,
    "auto": auto,
}


def confidence(policy: str | None, options: Any) -> Confidence | None:
    """What the values of the policy are made of; the draft distribution for any that is not
    known."""
    known = CONFIDENCES.get(policy or "")
    return known(options) if known else draft_distribution
