"""What must be in order inside: caches and trees."""

from __future__ import annotations

import torch

from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.models.hf_target import HFTarget
from specdec.testing.cases import Case
from specdec.testing.properties.common import PRECISION, require, shrinking
from specdec.testing.subject import Subject


def cache_is_a_fresh_prefill(subject: Subject, case: Case) -> float:
    """After every step the cache holds each committed token but the last, as a prefill would."""
    engine = subject.of(case)
    if not engine.parts.verifier.uses_cache:
        return 0.0
    running = shrinking(engine, case)
    for _ in running:
        state = running.state
        assert state.cache is not None
        lengths = state.cache.lengths.tolist()
        expected = [length - 1 for length in state.host_lengths]
        require(lengths == expected, f"cache lengths {lengths}, tokens - 1 are {expected}")
        for row, length in enumerate(lengths):
            if length:
                _like_a_prefill(engine.target, state, row, length)
    return 0.0


def _like_a_prefill(target: HFTarget, state: State, row: int, length: int) -> None:
    assert state.cache is not None
    fresh = target.new_cache(1, length)
    with torch.inference_mode():
        target.prefill(state.tokens[row : row + 1, :length], fresh)
    for layer, clean in zip(state.cache.layers, fresh.layers, strict=True):
        for name in ("keys", "values"):
            kept = getattr(layer.group, name)[layer.index][row, :length]
            true = getattr(clean.group, name)[clean.index][0, :length]
            wrong = (kept != true).flatten(1).any(dim=1).nonzero().flatten().tolist()
            require(
                not wrong,
                f"{name} of row {row} differ from a fresh prefill at positions {wrong}, with "
                f"{length} committed",
            )


def trees_are_well_formed(subject: Subject, case: Case) -> float:
    """Trees are rooted in the last token and closed under parents; p is right at every node, and
    what a companion's hidden state says is the target's too."""
    engine = subject.of(case)
    running = shrinking(engine, case)
    largest = 0.0
    for step in running:
        require(bool((step.tree.parents[:, 0] == -1).all()), "node 0 has a parent")
        for row in step.verification.active.nonzero().flatten().tolist():
            root = int(step.verification.root_position()[row])
            committed = running.state.tokens[row, : root + 1].tolist()
            paths = _paths(step, row, committed)
            largest = max(largest, _distributions_are_right(step, row, paths, case))
            if step.tree.companions is not None:
                gap = _companions_are_right(engine.target, step, row, committed, case)
                largest = max(largest, gap)
    return largest


def _paths(step: Step, row: int, committed: list[int]) -> dict[int, list[int]]:
    """The whole prefix of every valid node of a well-formed tree."""
    tree = step.tree
    tokens, parents = tree.tokens[row].tolist(), tree.parents[row].tolist()
    valid = tree.valid[row].tolist()
    require(tokens[0] == committed[-1], f"row {row}: the root is not the last token")
    paths = {0: committed}
    for node in range(1, tree.size):
        parent = parents[node]
        require(0 <= parent < node, f"row {row}: node {node} hangs from {parent}")
        if not valid[node]:
            continue
        require(valid[parent], f"row {row}: node {node} hangs from the invalid {parent}")
        paths[node] = [*paths[parent], tokens[node]]
    deepest = max(map(len, paths.values())) - len(committed)
    require(deepest <= tree.depth, f"row {row}: {deepest} levels, depth says {tree.depth}")
    most = max(sum(parents[n] == p and valid[n] for n in paths) for p in paths)
    require(most <= tree.branching, f"row {row}: {most} children of {tree.branching}")
    return paths


def _distributions_are_right(
    step: Step, row: int, paths: dict[int, list[int]], case: Case
) -> float:
    """The largest difference of a node's p from the table's."""
    largest = 0.0
    for node, path in paths.items():
        p = case.target.after(torch.tensor([path]))[0].exp()
        gap = float((step.verification.logits[row, node].double().exp() - p).abs().max())
        require(gap <= PRECISION, f"row {row}: p at node {node}, path {path}, is off by {gap}")
        largest = max(largest, gap)
    return largest


def _companions_are_right(
    target: HFTarget, step: Step, row: int, committed: list[int], case: Case
) -> float:
    """The largest difference of the distribution after a companion from the table's."""
    read, first, largest = step.tree.with_companions, step.tree.size, 0.0
    with torch.inference_mode():
        scores = target.logits(step.verification.companions.last)[row].double().exp()
    for node in range(first, read.size):
        parent = int(read.parents[row, node])
        require(0 <= parent < node, f"row {row}: companion {node - first} hangs from {parent}")
        path = [*committed[:-1], *read.tokens[row, read.ancestors[row, node]].tolist()]
        p = case.target.after(torch.tensor([path]))[0].exp()
        gap = float((scores[node - first] - p).abs().max())
        what = f"p after companion {node - first}, path {path}"
        require(gap <= PRECISION, f"row {row}: {what}, is off by {gap}")
        largest = max(largest, gap)
    return largest
