"""The parts of a strategy, as an engine has made them."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.decoding.interfaces import Acceptor, Drafter, TreePolicy, Verifier


@dataclass(frozen=True)
class Parts:
    """What an engine has made of a strategy's names and options.

    Attributes:
        drafter: None is plain decoding, or a policy that drafts from the text alone.
        policy: None means that the drafter gives whole trees.
    """

    drafter: Drafter | None
    policy: TreePolicy | None
    verifier: Verifier
    acceptor: Acceptor
