"""Options: what is written down is what runs."""

from __future__ import annotations

import json
from contextlib import nullcontext

from pydantic import BaseModel, ValidationError

from specdec.decoding.step import Step
from specdec.engine import Engine
from specdec.testing.cases import Case
from specdec.testing.fake_clock import fake_clock
from specdec.testing.properties.common import require, same_trees
from specdec.testing.subject import Subject
from specdec.testing.table_drafter import set_draft_table


def options_round_trip(subject: Subject, case: Case) -> float:
    """Options survive being dumped and read; an engine made from them drafts and decodes the same.

    An option that does not exist is refused.
    """
    engine = subject.of(case)
    if subject.adaptive:  # what earlier cases have taught it is no option
        engine = _made(subject, engine, case, "python")
    for role, options in engine.selection.parsed.items():
        _survives(role, options)
    again = _made(subject, engine, case, "json")
    ours, theirs = _steps(subject, engine, case), _steps(subject, again, case)
    for one, other in zip(ours, theirs, strict=False):
        for row in one.verification.active.nonzero().flatten().tolist():
            same_trees(one.tree, other.tree, row, "an engine of the same options drafts otherwise")
        require(
            one.new_tokens == other.new_tokens,
            f"an engine of the same options commits {other.new_tokens}, not {one.new_tokens}",
        )
    require(len(ours) == len(theirs), f"{len(ours)} steps became {len(theirs)}")
    return 0.0


def _survives(role: str, options: BaseModel) -> None:
    kind, dumped = type(options), options.model_dump()
    for way, copy in (
        ("dumped and validated", kind.model_validate(dumped)),
        ("written as JSON and read", kind.model_validate_json(options.model_dump_json())),
    ):
        require(copy == options, f"options of the {role}: {way}, {options!r} became {copy!r}")
    try:
        kind.model_validate({**dumped, "no_such_option": 1})
    except ValidationError:
        return
    raise AssertionError(f"{kind.__name__} takes an option that does not exist: forbid extras")


def _made(subject: Subject, engine: Engine, case: Case, form: str) -> Engine:
    """An engine made from the options of ``engine``, dumped as ``"python"`` or as ``"json"``."""
    written = {
        role: json.loads(options.model_dump_json()) if form == "json" else options.model_dump()
        for role, options in engine.selection.parsed.items()
    }
    names = {str(role): name for role, name in engine.selection.names.items()}
    made = engine.with_strategy(subject.strategy, options=written, **names)  # type: ignore[arg-type]
    set_draft_table(made, case.draft)
    return made


def _steps(subject: Subject, engine: Engine, case: Case) -> list[Step]:
    with fake_clock() if subject.adaptive else nullcontext():
        return list(engine.session().start(case.rows, seed=case.seed, **case.settings))
