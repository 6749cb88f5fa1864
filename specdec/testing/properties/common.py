"""What properties share: texts, their comparison, and how a property says that it does not hold."""

from __future__ import annotations

from collections.abc import Sequence

from specdec.decoding.tree import DraftTree
from specdec.engine import Engine
from specdec.generation import Generation
from specdec.results import GenerationResult
from specdec.testing.cases import Case
from specdec.testing.tree_recorder import nodes_of

PRECISION = 1e-12
Text = list[int]


def require(holds: bool, message: str) -> None:
    """Raise an AssertionError unless ``holds``."""
    if not holds:
        raise AssertionError(message)


def results(
    engine: Engine, case: Case, seed: int | list[int], rows: Sequence[int] | None = None
) -> list[GenerationResult]:
    """What the engine makes of the case's prompts, or of those ``rows`` in that order."""
    prompts = case.rows if rows is None else [case.rows[row] for row in rows]
    found = engine.generate(prompts, seed=seed, **case.settings)
    return found if isinstance(found, list) else [found]


def shrinking(engine: Engine, case: Case) -> Generation:
    """A generation whose finished rows leave the batch, as those of ``generate`` do.

    They leave at the beginning of a step: what is seen right after one has all of its rows.
    """
    return engine.start(case.rows, seed=case.seed, **case.settings)


def texts(
    engine: Engine, case: Case, seed: int | list[int], rows: Sequence[int] | None = None
) -> list[Text]:
    """The tokens of :func:`results`."""
    return [result.token_ids for result in results(engine, case, seed, rows)]


def same_texts(ours: list[Text], theirs: list[Text], what: str) -> float:
    """Require equal tokens in every row; there is no other difference than 0."""
    for row, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        require(mine == other, f"{what}: row {row} has {mine} and {other}")
    return 0.0


def same_trees(
    tree: DraftTree, other: DraftTree, row: int, what: str, other_row: int | None = None
) -> None:
    """Require that a row's valid nodes are the same, in the same order, as ``other_row``'s.

    Args:
        other_row: the same as ``row`` unless given.
    """
    ours = list(nodes_of(tree, row))
    theirs = list(nodes_of(other, row if other_row is None else other_row))
    require(ours == theirs, f"{what}: row {row} has the paths {ours} and {theirs}")
