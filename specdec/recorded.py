"""The phases of a step as recordings: CUDA graphs that run no Python."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from specdec.acceleration.recording import Recorded, Recorder, Slot
from specdec.acceptance import Acceptance
from specdec.decoding import Parts
from specdec.metrics import Clock
from specdec.randomness import KeyedRandomness
from specdec.state import State
from specdec.target import HFTarget, Hidden
from specdec.tree import DraftTree, SampledFrom, label
from specdec.verification import Verification


class Graphs:
    """The recordings of an engine, phase by phase.

    Args:
        recorder: what records.
        hot: how often a phase runs as it is, with all that a recording depends on, before it is
            recorded.
    """

    def __init__(self, recorder: Recorder, *, hot: int) -> None:
        self.recorder = recorder
        # Each of its own: what a phase gives is read after the next ones have been replayed.
        self.draft = Recorded("draft", recorder.apart(), hot=hot)
        self.verify = Recorded("verify", recorder.apart(), hot=hot)
        self.accept = Recorded("accept", recorder.apart(), hot=hot)
        self.slots: dict[Hashable, int] = {}  # cache slots that drafts of one shape take
        self.scores: Tensor | None = None  # where the last verification was replayed into

    def clear(self) -> None:
        """Give back the memory of all recordings."""
        self.scores = None
        for phase in (self.draft, self.verify, self.accept):
            phase.clear()


@dataclass(frozen=True)
class RecordedParts(Parts):
    """Parts whose drafting, verification and acceptance are replayed where they can be.

    Trees and acceptances are cloned. The next replay of a phase writes over what else it gave:
    hidden states and logits of a verification, what a policy remembers of a growth.
    """

    graphs: Graphs | None = None

    @classmethod
    def of(cls, parts: Parts, graphs: Graphs) -> RecordedParts:
        """The same parts, recorded."""
        return cls(**vars(parts), graphs=graphs)

    def grow(self, state: State, levels: int, clock: Clock) -> DraftTree:
        drafter, policy, graphs = self.drafter, self.policy, self._graphs
        assert drafter is not None and policy is not None
        if reason := (
            _unsaid(drafter, drafter.recordable)
            or _unsaid(policy, policy.growth_key is not None)
            or _unsaid(state.randomness, type(state.randomness) is KeyedRandomness)
        ):
            graphs.draft.refuse(reason)
            return super().grow(state, levels, clock)
        plan = (levels, policy.growth_key, state.rows)
        sizes = drafter.settle(levels, graphs.slots.get(plan, 0))
        if sizes is None or plan not in graphs.slots:
            tree = super().grow(state, levels, clock)
            graphs.slots[plan] = drafter.slots
            return tree
        footprint = drafter.footprint()

        def grow() -> _Drafted:
            before = _attributes(policy)
            own = Clock()
            tree = Parts.grow(self, state, levels, own)
            written = [getattr(owner, name) for owner, name in footprint.writes]
            after = _attributes(policy)
            memory = {n: value for n, value in after.items() if not _same(value, before.get(n))}
            return _Drafted(tree, written, memory, own.draft_forwards)

        drafted, replayed = graphs.draft.run(
            (plan, sizes, self._rules(state), *map(graphs.recorder.address, footprint.stores)),
            grow,
            inputs=(),
            reads=[
                *((state, name) for name in ("tokens", "lengths", "limits", "active")),
                *footprint.reads,
                *_tensors_of(state.randomness, *policy.reads()),
            ],
            owners=(state, drafter, policy),
        )
        clock.draft_forwards += drafted.forwards
        if not replayed:
            return drafted.tree
        for (owner, name), tensor in zip(footprint.writes, drafted.written, strict=True):
            setattr(owner, name, tensor.clone())
        drafter.replayed()
        for name, value in drafted.memory.items():
            setattr(policy, name, list(value) if isinstance(value, list) else value)
        return _filled(drafted.tree, [tensor.clone() for tensor in _contents(drafted.tree)])

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        graphs, cache = self._graphs, state.cache
        graphs.scores = None
        if reason := (
            _unsaid(self.verifier, self.verifier.recordable)
            or _unsaid(target, type(target) is HFTarget)
        ):
            graphs.verify.refuse(reason)
        if reason or cache is None:
            return super().verify(target, state, tree)
        sizes = cache.settle(tree.size)

        def verify(*tensors: Tensor) -> tuple[Hidden, Tensor]:
            own = Parts.verify(self, target, state, _filled(tree, tensors))
            return own.hidden, own.logits

        (hidden, logits), replayed = graphs.verify.run(
            (sizes, _shape(tree), *map(graphs.recorder.address, cache.stores)),
            verify,
            inputs=_contents(tree)[:4],
            reads=[(state, "lengths"), (state, "active"), (cache, "lengths"), (cache, "_starts")],
            owners=(),
        )
        graphs.scores = logits if replayed else None
        return Verification(state, tree, hidden, logits)

    def accept(self, state: State, tree: DraftTree, verification: Verification) -> Acceptance:
        graphs, logits = self._graphs, verification.logits
        if reason := (
            _unsaid(self.acceptor, self.acceptor.recordable)
            or _unsaid(state.randomness, type(state.randomness) is KeyedRandomness)
            or ("logits processors run row by row, on the host" if state.processors.by_row else "")
        ):
            graphs.accept.refuse(reason)
        if reason or logits is not graphs.scores:
            return super().accept(state, tree, verification)

        def accept(*tensors: Tensor) -> Acceptance:
            own = _filled(tree, tensors)
            again = Verification(state, own, verification.hidden, logits, recorded=True)
            return Parts.accept(self, state, own, again)

        acceptance, replayed = graphs.accept.run(
            (self._rules(state), _shape(tree), graphs.recorder.address(logits)),
            accept,
            inputs=_contents(tree),
            reads=[
                *((state, name) for name in ("tokens", "lengths", "active")),
                *_tensors_of(state.randomness),
            ],
            owners=(),
        )
        if not replayed:
            return acceptance
        return Acceptance(**{name: tensor.clone() for name, tensor in vars(acceptance).items()})

    def release(self) -> None:
        self._graphs.clear()

    @property
    def _graphs(self) -> Graphs:
        assert self.graphs is not None
        return self.graphs

    def _rules(self, state: State) -> Hashable:
        """What a request asks for, as far as the host knows it."""
        return state.processors.key, state.stopping.eos, state.span


@dataclass(frozen=True)
class _Drafted:
    """What a draft leaves behind: the tree, tensors for later steps, a policy's attributes."""

    tree: DraftTree
    written: list[Tensor]
    memory: dict[str, Any]
    forwards: int


def _unsaid(part: object, recordable: bool) -> str:
    """Why a part is not recorded; empty if it can be."""
    return "" if recordable else f"{type(part).__name__} does not say that it can be recorded"


def _shape(tree: DraftTree) -> Hashable:
    return tree.depth, tree.branching, tree.draws


def _contents(tree: DraftTree) -> list[Tensor]:
    sampled = tree.sampled_from
    own = [tree.tokens, tree.parents, tree.log_value, tree.valid]
    return own if sampled is None else [*own, sampled.q, sampled.row]


def _filled(tree: DraftTree, contents: Sequence[Tensor]) -> DraftTree:
    """A tree like ``tree`` of other tensors, with nothing worked out yet; without laws no label."""
    tokens, parents, log_value, valid, *laws = contents
    own = replace(tree, tokens=tokens, parents=parents, log_value=log_value, valid=valid)
    return label(own, tree.draws, SampledFrom(*laws)) if laws else own


def _tensors_of(*owners: object) -> list[Slot]:
    return [
        (owner, name)
        for owner in owners
        for name, value in vars(owner).items()
        if isinstance(value, Tensor)
    ]


def _attributes(owner: object) -> dict[str, Any]:
    return {n: list(v) if isinstance(v, list) else v for n, v in vars(owner).items()}


def _same(now: Any, before: Any) -> bool:
    if isinstance(now, list) and isinstance(before, list):
        return len(now) == len(before) and all(map(operator.is_, now, before))
    return now is before
