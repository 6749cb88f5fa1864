"""The record of one text, step by step: what ``--explain`` and the page of a trace show."""

from __future__ import annotations

import math
from enum import Enum

from pydantic import BaseModel, ConfigDict


class Outcome(str, Enum):
    """What became of a draft token."""

    ACCEPTED = "accepted"
    """It was committed."""
    REJECTED = "rejected"
    """The text got to the node above it and took another token there."""
    NOT_REACHED = "not reached"
    """The text did not get to the node above it, or ended there."""
    CUT = "cut"
    """The target took it too, but a stop rule had ended the text."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TracedToken(_Record):
    """A committed token.

    Attributes:
        token: its id.
        text: what it adds to the text; empty for a special token that is not shown, and for the
            first tokens of a character of several. None without a tokenizer.
        name: the token by itself, as a draft token's ``text``.
        probability: what the target gives it after the tokens before it, before processors,
            temperature and truncation.
    """

    token: int
    text: str | None
    name: str | None
    probability: float


class TracedNode(_Record):
    """A draft token.

    Attributes:
        node: its index in the tree's tensors; the root is 0.
        parent: the index of the node above it.
        depth: levels below the root.
        token: its id.
        text: the token by itself; a special one by its name. None without a tokenizer.
        value: the product of the drafter's confidences along the path. A strategy whose values are
            no probabilities has 1 everywhere, or values above 1.
        probability: what the target gives it after the path to its parent, before processors,
            temperature and truncation.
        outcome: what became of it.
    """

    node: int
    parent: int
    depth: int
    token: int
    text: str | None
    value: float
    probability: float
    outcome: Outcome


class TracedStep(_Record):
    """One step of one text.

    Attributes:
        root: the text of the root, as a draft token's; None without a tokenizer.
        nodes: the draft tokens that were verified, in the order of the tree.
        tokens: what was committed: the accepted path, then the bonus token.
        bonus: whether the last of them is the bonus token. False where a stop rule ended the text
            on the accepted path.
        budget: draft tokens verified; padding, which a batch needs, included.
        levels: levels that the drafter was asked for; more than the tree is deep where fewer were
            worth verifying, 0 where draft tokens come from the text or as whole trees.
        tried: levels at which there was a draft token to accept or reject.
        from_text: whether the text itself suggested the draft tokens, rather than the drafter.
        seconds: by phase (``draft``, ``verify``, ``accept``, ``commit``), of the whole batch. The
            first step's ``draft`` includes what the drafter does with the prompt.
    """

    root: str | None
    nodes: list[TracedNode]
    tokens: list[TracedToken]
    bonus: bool
    budget: int
    levels: int
    tried: int
    from_text: bool
    seconds: dict[str, float]

    @property
    def drafted(self) -> bool:
        """False if the tree was the root alone: a step of plain decoding."""
        return self.budget > 0

    @property
    def depth(self) -> int:
        """The deepest level with a draft token that was verified."""
        return max((node.depth for node in self.nodes), default=0)

    @property
    def accepted(self) -> list[TracedNode]:
        """The accepted path."""
        return [node for node in self.nodes if node.outcome is Outcome.ACCEPTED]

    @property
    def rejected(self) -> list[TracedNode]:
        """The draft tokens at the end of the accepted path, in whose place the bonus token came."""
        end = max((node.node for node in self.accepted), default=0)
        below = [node for node in self.nodes if node.parent == end]
        return [node for node in below if node.outcome is Outcome.REJECTED]

    @property
    def wanted(self) -> TracedToken | None:
        """The bonus token: what the target took at the end of the accepted path."""
        return self.tokens[-1] if self.bonus else None

    @property
    def expected(self) -> float | None:
        """Tokens that the values expect, the bonus token included; None where values are no
        probabilities: all are 1 because the drafter gives none, or one is larger."""
        values = [node.value for node in self.nodes]
        if values and (all(value == 1 for value in values) or max(values) > 1 + 1e-6):
            return None
        return 1 + math.fsum(values)

    @property
    def text(self) -> str | None:
        """What the step adds to the text."""
        pieces = [token.text for token in self.tokens]
        return None if None in pieces else "".join(piece or "" for piece in pieces)


class Trace(_Record):
    """How one text was decoded; ``engine.generate(prompt, trace=True).trace``.

    ``model_dump_json()`` writes it and ``Trace.model_validate_json`` reads it.

    Attributes:
        version: of this layout.
        model: the target's name.
        strategy: the strategy's name.
        lossless: whether its acceptor keeps the target's distribution.
        greedy: whether the target's tokens are its likeliest, rather than drawn.
        prompt: the text of the prompt as the model read it, special tokens included; None without a
            tokenizer.
        prompt_tokens: its tokens.
        text: of the new tokens, the texts of the steps put together; None without a tokenizer.
        finish_reason: ``"eos"``, ``"stop"``, ``"length"``, ``"criteria"``, ``"time"``; None if it
            was left unfinished.
        steps: every step in which the text took part.
        seconds: by phase, of the whole batch, with ``"prefill"``, ``"total"`` and ``"other"``. What
            it takes to record a step is not in them.
    """

    version: int = 1
    model: str
    strategy: str
    lossless: bool
    greedy: bool
    prompt: str | None
    prompt_tokens: int
    text: str | None
    finish_reason: str | None
    steps: list[TracedStep]
    seconds: dict[str, float]

    @property
    def tokens(self) -> list[int]:
        """The new tokens."""
        return [token.token for step in self.steps for token in step.tokens]

    @property
    def tau(self) -> float:
        """Tokens committed per step."""
        return len(self.tokens) / len(self.steps) if self.steps else 0.0

    def html(self) -> str:
        """One self-contained page that shows the trace; needs no network."""
        from specdec.tracing.rendering import render

        return render(self)
