"""The smallest case on which a property still fails, as far as it is found within some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from specdec.testing.cases import Case
from specdec.testing.tables import Table


@dataclass(frozen=True)
class Failure:
    """A case on which a property does not hold.

    Attributes:
        case: as it was run.
        kind: of the exception.
        message: what it said.
    """

    case: Case
    kind: type[Exception]
    message: str

    def __str__(self) -> str:
        kind = "" if self.kind is AssertionError else f"{self.kind.__name__}: "
        return f"{kind}{self.message}\ncounter-example:{self.case}"


def simplest(failure: Failure, tried: Callable[[Case], Failure | None], patience: float) -> Failure:
    """Make the case smaller, one thing after the other, as long as it fails by the same exception.

    Args:
        tried: how the property fails on a case; None if it holds.
        patience: seconds after which what has been found is returned.
    """
    end, known = time.monotonic() + patience, {repr(failure.case)}
    smaller = True
    while smaller:
        smaller = False
        for ways in (_batch, _settings, _texts, _tables, _rest):
            again = True
            while again:
                again = False
                for case in _possible(ways, failure.case):
                    if time.monotonic() > end:
                        return failure
                    if repr(case) in known:
                        continue
                    known.add(repr(case))
                    found = tried(case)
                    if found is not None and found.kind is failure.kind:
                        failure, smaller, again = found, True, True
                        break
    return failure


def _possible(ways: Callable[[Case], Iterator[Case]], case: Case) -> Iterator[Case]:
    """The cases of ``ways`` that are cases at all."""
    candidates = ways(case)
    while True:
        try:
            yield next(candidates)
        except (StopIteration, ValueError):  # a table that is none ends the way
            return


def _batch(case: Case) -> Iterator[Case]:
    """Fewer rows."""
    own, *others = case.prompts
    if others:
        yield replace(case, prompts=(own,))
    for index in range(len(others) if len(others) > 1 else 0):
        yield replace(case, prompts=(own, *others[:index], *others[index + 1 :]))


def _settings(case: Case) -> Iterator[Case]:
    """Fewer settings, and fewer tokens."""

    def having(**more: Any) -> Case:
        return replace(case, settings={**case.settings, **more})

    needed = ("temperature", "max_new_tokens", "eos_token_id")
    for name in case.settings:
        if name not in needed:
            left = {key: value for key, value in case.settings.items() if key != name}
            yield replace(case, settings=left)
    if case.settings.get("eos_token_id"):
        yield having(eos_token_id=[])
    for string in case.settings.get("stop", ()) if len(case.settings.get("stop", ())) > 1 else ():
        yield having(stop=[string])
    if case.settings["temperature"] not in (0.0, 1.0):
        yield having(temperature=1.0)
    most = case.settings["max_new_tokens"]
    for fewer in sorted({1, 2, 3, most // 2, most - 1}):
        if 0 < fewer < most:
            yield having(max_new_tokens=fewer)


def _texts(case: Case) -> Iterator[Case]:
    """Shorter prompts, of fewer different tokens. Open distributions stay where they are in the
    text."""
    if min(map(len, case.prompts)) > 1:  # their lengths may matter by their differences
        prompts = tuple(prompt[1:] for prompt in case.prompts)
        target, draft = _moved(case.target, 1), _moved(case.draft, 1)
        yield replace(case, prompts=prompts, target=target, draft=draft)
    for row, prompt in enumerate(case.prompts):
        ways = [prompt[len(prompt) // 2 :], prompt[1:], prompt[:1] * len(prompt)]
        for shorter in dict.fromkeys(way for way in ways if way and way != prompt):
            cut = len(prompt) - len(shorter) if row == 0 else 0
            prompts = (*case.prompts[:row], shorter, *case.prompts[row + 1 :])
            target, draft = _moved(case.target, cut), _moved(case.draft, cut)
            yield replace(case, prompts=prompts, target=target, draft=draft)


def _moved(table: Table, by: int) -> Table:
    if table.open is None or by == 0:
        return table
    turn = by % len(table.quiet)
    quiet = table.quiet[turn:] + table.quiet[:turn]
    return table.opened(tuple(p - by for p in table.open if p >= by), quiet)


def _tables(case: Case) -> Iterator[Case]:
    """Simpler distributions, over fewer tokens."""
    if case.model:
        return
    target, draft = case.target, case.draft
    if target.vocabulary is not None:
        yield _renamed(case, target.over(None), draft.over(None))
    if target.size > 2:
        yield _renamed(case, _narrow(target), _narrow(draft))
    if target.open is not None:
        yield replace(case, target=target.opened(None, (0,)), draft=draft.opened(None, (0,)))
    yield replace(case, draft=target)
    yield replace(case, draft=replace(draft, order=0, weights=((1.0,) * draft.size,)))
    for way in _plainer(target):
        yield replace(case, target=way)
    for way in _plainer(draft):
        yield replace(case, draft=way)
    if target.open is not None and len(target.open) > 1:
        for place in target.open:
            left = tuple(p for p in target.open if p != place)
            both = (target.opened(left, target.quiet), draft.opened(left, draft.quiet))
            yield replace(case, target=both[0], draft=both[1])


def _plainer(table: Table) -> Iterator[Table]:
    if table.order:
        yield replace(table, order=table.order - 1)
    for index in range(len(table.weights) if len(table.weights) > 1 else 0):
        yield replace(table, weights=table.weights[:index] + table.weights[index + 1 :])
    for index, distribution in enumerate(table.weights):
        changes = ((slot, w) for slot in range(table.size) for w in (1.0, 0.0, 2.0))
        for slot, weight in chain(changes):
            simpler = (*distribution[:slot], weight, *distribution[slot + 1 :])
            if _simple(weight) < _simple(distribution[slot]) and sum(simpler) > 0:
                weights = (*table.weights[:index], simpler, *table.weights[index + 1 :])
                yield replace(table, weights=weights)
    if len(table.quiet) > 1:
        yield replace(table, quiet=table.quiet[:1])


def _simple(weight: float) -> int:
    return {1.0: 0, 0.0: 1, 2.0: 2}.get(weight, 3)


def _narrow(table: Table) -> Table:
    """The table without its last token."""
    distributions = tuple(
        distribution[:-1] if sum(distribution[:-1]) > 0 else (1.0,) * (table.size - 1)
        for distribution in table.weights
    )
    quiet = tuple(min(slot, table.size - 2) for slot in table.quiet)
    return replace(table, size=table.size - 1, weights=distributions, quiet=quiet)


def _renamed(case: Case, target: Table, draft: Table) -> Case:
    """The case over the tokens of other tables."""
    slots = {token: slot for slot, token in enumerate(case.target.tokens)}

    def name(token: int) -> int:
        return target.tokens[min(slots.get(token, 0), target.size - 1)]

    settings = {**case.settings}
    settings["eos_token_id"] = [name(token) for token in settings["eos_token_id"]]
    prompts = tuple(tuple(map(name, prompt)) for prompt in case.prompts)
    noise = tuple(row[: target.size] for row in case.noise)
    return replace(
        case, target=target, draft=draft, prompts=prompts, settings=settings, noise=noise
    )


def _rest(case: Case) -> Iterator[Case]:
    """Without what does not matter."""
    if case.window is not None:
        yield replace(case, window=None)
    if case.small:
        yield replace(case, small=False)
    if case.seed:
        yield replace(case, seed=0)
    if case.model:
        yield replace(case, model="llama")
    if len(case.noise) > 1:
        yield replace(case, noise=case.noise[:1])
        yield replace(case, noise=case.noise[:-1])
    for row, given in enumerate(case.noise):
        even = (10,) * len(given)
        if given != even:
            yield replace(case, noise=(*case.noise[:row], even, *case.noise[row + 1 :]))
