"""One example that a property is checked on, and the strategy that it is checked for."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.utils import logging

from specdec.engine import Engine
from specdec.randomness import Randomness
from specdec.registry import Registry
from specdec.testing.drafting import PROVIDERS, SMALL, Provider, TablePlugin, set_draft_table
from specdec.testing.tables import Table, TableForCausalLM


class Zigzag(LogitsProcessor):  # type: ignore[misc]
    """A processor that depends on the whole prefix: it favours tokens of one parity by its sum."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = torch.arange(scores.shape[-1], device=scores.device)
        odd = (input_ids.sum(dim=-1, keepdim=True) + input_ids.shape[1] + tokens) % 2
        return scores + self.strength * odd

    def __repr__(self) -> str:
        return f"Zigzag({self.strength:g})"


@dataclass(frozen=True)
class Case:
    """One example.

    Attributes:
        target, draft: the laws of the target and of the drafter.
        prompts: the row that is examined, then its neighbours in the batch.
        settings: arguments of ``Engine.generate``.
        seed: of the generation, where the property draws from a seed.
        window: the target's sliding window; None for full attention.
        noise: for each token position the noise of every token in tenths, where the property
            draws from a noise table.
    """

    target: Table
    draft: Table
    prompts: tuple[tuple[int, ...], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    window: int | None = None
    noise: tuple[tuple[int, ...], ...] = ()

    @property
    def rows(self) -> list[list[int]]:
        """The prompts as ``generate`` takes them."""
        return [list(prompt) for prompt in self.prompts]

    def __repr__(self) -> str:
        lines = [f"target   {self.target}", f"draft    {self.draft}"]
        lines += [f"prompts  {' | '.join(str(list(p)) for p in self.prompts)}"]
        lines += [f"settings {', '.join(f'{k}={v}' for k, v in self.settings.items())}"]
        lines += [f"seed     {self.seed}"]
        if self.window:
            lines += [f"window   {self.window}"]
        if self.noise:
            lines += [f"noise    {self.noise}"]
        return "\n  " + "\n  ".join(lines)


class Subject:
    """The strategy under test, on table models.

    Args:
        strategy: its name.
        options: options of its parts by role; for policies that ship with specdec small trees
            unless given.
        plugins: plugin modules or objects to register besides the installed ones.
        drafter: name of another drafter (``"table"`` drafts from tables), the checkpoint of one
            that fits the models, or a function ``(table, folder)`` that saves one and returns it.
        policy, verifier, acceptor: names of other parts than the strategy's.

    Raises:
        SpecdecError: what ``Engine`` raises.
    """

    def __init__(
        self,
        strategy: str,
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        plugins: Sequence[object] = (),
        drafter: str | Provider | None = None,
        policy: str | None = None,
        verifier: str | None = None,
        acceptor: str | None = None,
    ) -> None:
        self.strategy = strategy
        self._plugins = [TablePlugin(), *plugins]
        registry = Registry.load(self._plugins)
        own = registry.strategy(strategy)
        self._options = {role: dict(given) for role, given in (options or {}).items()}
        small = SMALL.get(policy or own.policy or "")
        if small is not None and "policy" not in self._options:
            self._options["policy"] = dict(small)
        self._swaps = {"policy": policy, "verifier": verifier, "acceptor": acceptor}
        self._drafter: str | None = drafter if isinstance(drafter, str) else None
        self._provider: Provider | None = None if drafter is None else PROVIDERS.get(str(drafter))
        if callable(drafter):
            self._provider = drafter
        elif drafter is None:
            self._provider = PROVIDERS.get(own.drafter or "")
        if "checkpoint" in self._options.get("drafter", {}):
            self._provider = None
        self._engines: dict[tuple[int, int | None], Engine] = {}
        self._plain: dict[tuple[int, int | None], Engine] = {}
        parts = self.any_engine().parts
        self.lossless, self.seed_exact = parts.acceptor.lossless, parts.acceptor.seed_exact

    def engine(
        self, target: Table, draft: Table | None = None, window: int | None = None
    ) -> Engine:
        """The strategy on a model of ``target``, drafting from ``draft`` if it can."""
        engine = self._engines.get((target.size, window))
        if engine is None:
            engine = self._engines[target.size, window] = self._make(target, window)
        model = engine.target.model
        assert isinstance(model, TableForCausalLM)
        model.set_table(target)
        set_draft_table(engine.parts.drafter, draft or target)
        return engine

    def any_engine(self) -> Engine:
        """The strategy on some model."""
        return self.engine(Table(3, 0, ((1.0,) * 3,)))

    def of(self, case: Case, randomness: Randomness | None = None) -> Engine:
        """The engine of a case, drawing from ``randomness`` if it is given."""
        return drawing(self.engine(case.target, case.draft, case.window), randomness)

    def plain(self, case: Case, randomness: Randomness | None = None) -> Engine:
        """Plain decoding of the case's target."""
        engine = self.of(case)
        key = (case.target.size, case.window)
        if key not in self._plain:
            self._plain[key] = engine.with_strategy("plain")
        return drawing(self._plain[key], randomness)

    def _make(self, target: Table, window: int | None) -> Engine:
        logging.disable_progress_bar()
        with tempfile.TemporaryDirectory() as folder:
            options = {role: dict(given) for role, given in self._options.items()}
            if self._provider is not None:
                checkpoint = self._provider(target, Path(folder))
                options.setdefault("drafter", {})["checkpoint"] = checkpoint
            return Engine(
                TableForCausalLM.of(target, window),
                strategy=self.strategy,
                drafter=self._drafter,
                options=options,
                plugins=self._plugins,
                **self._swaps,  # type: ignore[arg-type]
            )


def drawing(engine: Engine, randomness: Randomness | None) -> Engine:
    """The engine with its generator replaced; itself for None."""
    if randomness is None:
        return engine
    other = copy.copy(engine)
    other.make_randomness = lambda seeds: randomness  # type: ignore[method-assign]
    return other
