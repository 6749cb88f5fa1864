"""``specdec generate --explain``: for each step what was drafted, expected and accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group

from specdec.cli.terminal import table
from specdec.plugin.components import hookimpl

if TYPE_CHECKING:
    from specdec.decoding.step import Step
    from specdec.engine import Engine

_COLUMNS = ("step", "drafted", "budget", "grown", "depth", "expected", "realised")
_LEGEND = (
    "drafted: no means a step of plain decoding, text one whose draft is from the text itself; "
    "budget: draft tokens verified; grown: levels drafted; depth: the deepest level verified.",
    "expected: 1 for the bonus token and the value of every draft token; realised: tokens "
    "committed. Expected above realised on average: confidences are too high; below: too low.",
)
_NO_VALUES = "expected -: the values of that step's tree are no probabilities."


@dataclass(frozen=True)
class Decision:
    """One step of one row.

    Attributes:
        drafted: False if the tree was the root alone: a step of plain decoding.
        from_text: whether the text itself suggested the draft tokens.
        budget: draft tokens verified.
        levels: levels that were grown.
        depth: the deepest level with a draft token that was verified.
        expected: tokens that the values promise, the bonus token included; None where values are
            no probabilities: all are 1 because the drafter gives none, or one is larger.
        realised: tokens committed, after stop rules.
    """

    drafted: bool
    from_text: bool
    budget: int
    levels: int
    depth: int
    expected: float | None
    realised: int


def decision(step: Step, row: int = 0) -> Decision:
    """What a committed step says about ``row``. Reads from the device."""
    tree = step.tree
    real = tree.valid[row, 1:]
    values = tree.log_value[row, 1:][real].double()
    promised = not len(values) or bool((values != 0).any() and (values <= 1e-6).all())
    depths = tree.depths[row, 1:][real]
    return Decision(
        drafted=tree.size > 1,
        from_text=tree.from_text,
        budget=tree.size - 1,
        levels=tree.depth,
        depth=int(depths.max()) if len(depths) else 0,
        expected=1 + float(values.exp().sum()) if promised else None,
        realised=len(step.new_tokens[row]),
    )


@dataclass
class Explanation:
    """The decisions of one text; an observer of its steps.

    Attributes:
        decisions: of every step, in order.
    """

    decisions: list[Decision] = field(default_factory=list)

    @hookimpl
    def specdec_step(self, step: Step) -> None:
        """Take in a step."""
        self.decisions.append(decision(step))

    @contextmanager
    def watching(self, engine: Engine) -> Iterator[None]:
        """Within, generations of ``engine`` are explained."""
        manager = engine.registry.manager
        manager.register(self)
        try:
            yield
        finally:
            manager.unregister(self)

    def as_json(self) -> list[dict[str, Any]]:
        """One object a step."""
        return [
            {"step": number, **asdict(made)} for number, made in enumerate(self.decisions, start=1)
        ]

    def as_table(self) -> Group:
        """One line a step, and the means below."""
        rows: list[Sequence[Any]] = [
            (
                number,
                "text" if made.from_text else "yes" if made.drafted else "no",
                made.budget,
                made.levels,
                made.depth,
                None if made.expected is None else f"{made.expected:.2f}",
                made.realised,
            )
            for number, made in enumerate(self.decisions, start=1)
        ]
        notes = [*_LEGEND]
        if any(made.expected is None for made in self.decisions):
            notes.append(_NO_VALUES)
        return table(_COLUMNS, rows, notes=[self._means(), *notes])

    def _means(self) -> str:
        made = self.decisions
        if not made:
            return "no step was run"
        known = [one for one in made if one.expected is not None]
        drafted = [one for one in made if one.drafted]
        text = f"{len(made)} {'step' if len(made) == 1 else 'steps'}, {len(drafted)} with drafts"
        if told := sum(one.from_text for one in made):
            text += f" ({told} from the text)"
        text += f"; mean budget {_mean([one.budget for one in made]):.1f}"
        if known:
            expected = _mean([one.expected or 0.0 for one in known])
            realised = _mean([one.realised for one in known])
            text += f"; mean expected {expected:.2f}, realised {realised:.2f} tokens a step"
        else:
            realised = _mean([one.realised for one in made])
            text += f"; mean realised {realised:.2f} tokens a step"
        return text


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
