"""Whether trees are what the tree policy and the drafter say they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from specdec.decoding.tree import DraftTree
from specdec.testing.cases import Case
from specdec.testing.properties.common import PRECISION, require, shrinking
from specdec.testing.subject import Subject
from specdec.testing.tree_recorder import Drafted, nodes_of, record

Path = tuple[int, ...]


def tree_is_the_reference(subject: Subject, case: Case) -> float:
    """Expansion and reranking give the tree that a plain Python reference of the policy gives."""
    assert subject.reference is not None
    options, largest = subject.of(case).selection.parsed["policy"], 0.0
    for tree, drafted, row, _, rooms in _trees(subject, case):
        room = rooms[row]
        nodes = subject.reference(options, room, drafted.children(row)) if room else ()
        due = {node.path: node.value for node in nodes}
        found = nodes_of(tree, row)
        missing, extra = due.keys() - found.keys(), found.keys() - due.keys()
        require(
            not missing and not extra,
            f"row {row}: the reference has {_shown(missing) or 'no other node'} besides, the tree "
            f"has {_shown(extra) or 'no other node'}",
        )
        largest = max(largest, _same_values(row, found, due, drafted))
    return largest


def values_are_products(subject: Subject, case: Case) -> float:
    """A node's value is the product of the drafter's confidences on its path."""
    largest = 0.0
    for tree, drafted, row, _, _ in _trees(subject, case):
        distributions, found = drafted.links(row), nodes_of(tree, row)
        due = {}
        for path in found:
            links = [(path[:depth], token) for depth, token in enumerate(path)]
            require(
                all(token in distributions.get(above, ()) for above, token in links),
                f"row {row}: the drafter never proposed the path {list(path)}",
            )
            due[path] = sum(distributions[above][token] for above, token in links)
        largest = max(largest, _same_values(row, found, due, drafted))
    return largest


def draft_distribution_is_the_table(subject: Subject, case: Case) -> float:
    """For drafters whose distribution is a table: q at every expanded node is that distribution of
    its path."""
    largest = 0.0
    for _, drafted, row, committed, _ in _trees(subject, case):
        for path, distribution in drafted.distributions(row).items():
            due = case.draft.after(torch.tensor([[*committed, *path]]))[0].exp()
            q = torch.zeros_like(due)
            for token, log_q in distribution.items():
                q[token] = torch.tensor(log_q, dtype=due.dtype).exp()
            gap = float((q - due).abs().max())
            require(
                gap <= PRECISION,
                f"row {row}: q below {list(path)} is {q.tolist()}, the table has {due.tolist()}",
            )
            largest = max(largest, gap)
    return largest


class _Drafted(NamedTuple):
    """One row of a tree that was verified.

    Attributes:
        tree: the tree of all rows.
        how: how it came about.
        row: the row.
        committed: its tokens up to the root.
        rooms: for each unfinished row the levels that its limit left room for.
    """

    tree: DraftTree
    how: Drafted
    row: int
    committed: list[int]
    rooms: dict[int, int]


def _trees(subject: Subject, case: Case) -> Iterator[_Drafted]:
    """Every drafted tree of a generation, for each row that it was drafted for."""
    engine, drafted = record(subject.of(case))
    running, trees = shrinking(engine, case), 0
    for step in running:
        roots = step.verification.root_position().tolist()
        active = step.verification.active.nonzero().flatten().tolist()
        # Besides the root there is the bonus token, which must fit too.
        rooms = {row: running.state.stopping.limits[row] - roots[row] - 2 for row in active}
        if len(drafted) == trees:
            idle = subject.adaptive or max(rooms.values()) == 0
            require(idle, f"no tree was drafted, with room for {rooms} levels")
            continue
        trees = len(drafted)
        for row in active:
            committed = running.state.tokens[row, : roots[row] + 1].tolist()
            yield _Drafted(step.tree, drafted[-1], row, committed, rooms)


def _same_values(row: int, found: dict[Path, float], due: dict[Path, float], how: Drafted) -> float:
    largest = 0.0
    allowed, share = (1e-9, 1e-12) if how.double_values else (1e-4, 1e-6)
    for path, value in found.items():
        gap = abs(value - due[path])
        require(
            gap <= allowed + share * abs(due[path]),
            f"row {row}: {list(path)} has the value {value:.9g}, log q along it is {due[path]:.9g}",
        )
        largest = max(largest, gap)
    return largest


def _shown(paths: set[Path]) -> str:
    return ", ".join(str(list(path)) for path in sorted(paths))
