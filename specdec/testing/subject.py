"""The strategy under test: its engines on the suite's models."""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from specdec.booleans import check_bools
from specdec.decoding.randomness import Randomness
from specdec.decoding.tree import Draws
from specdec.engine import Engine
from specdec.errors import DrafterWarning
from specdec.plugin.components import Strategy
from specdec.plugin.registry import Registry
from specdec.testing.cases import Case
from specdec.testing.fake_clock import fake_clock
from specdec.testing.reach import Reach
from specdec.testing.references import Reference
from specdec.testing.support import Provider, Support
from specdec.testing.table_drafter import TableDrafter, TablePlugin, set_draft_table
from specdec.testing.table_model import TableForCausalLM, register
from specdec.testing.tables import Table
from specdec.testing.tiny_models import CONFIGS, bigrams, make_model
from specdec.testing.toy_tokenizer import toy_tokenizer


class Subject:
    """The strategy under test, on table models and on small transformers models.

    Args:
        strategy: its name.
        options: options of its parts by role.
        plugins: plugin modules or objects to register besides the installed ones.
        drafter: name of another drafter (``"table"`` drafts from tables), the checkpoint of one
            that fits the table models, or a function ``(target model, folder)`` that saves one
            that fits the model into the folder and returns the folder as a string.
        policy, verifier, acceptor: names of other parts than the strategy's.
        reference: what the tree policy is to do, in plain Python; by default what its plugin says.
        adaptive: whether drafts depend on how earlier drafts fared, so that they need not be those
            of a drafter that has just begun on the same text; also where the policy's plugin says
            so.

    What plugins say of their parts (:mod:`specdec.testing.support`) is taken into account. The
    strategy is examined as it is configured, but for options that keep the clock out of a drafter.
    On some of the cases the policy has the small options that its plugin gives, in place of those
    that it was not given: over a few tokens its usual tree holds every continuation.

    Attributes:
        small: those options of the policy; None if there are none.
        levels: the deepest tree that it drafts.
        sampled: whether draft tokens are drawn.
        reach: how far distributions have been enumerated.
        tokens: the most tokens that the branches of one enumeration have together, about.
        lossless, seed_exact: what the acceptor says of itself.
        drafts: whether there is a drafter.
        grows: whether a tree policy grows the trees.
        has_table: whether the drafter's distribution is a table, over the whole vocabulary.
        remembers: whether drafts depend on the steps in which the text was committed.
        changed: options of the drafter that differ from those it is used with, in words; empty if
            none do.
        known_values: whether it is known what the values of its trees are made of.
        any_model: whether it runs on other models than tables.

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
        reference: Reference | None = None,
        adaptive: bool = False,
    ) -> None:
        check_bools(adaptive=adaptive)
        self.strategy = strategy
        self._plugins = [TablePlugin(), *plugins]
        registry = Registry.load(self._plugins)
        own = registry.strategy(strategy)
        self._options = {role: dict(given) for role, given in (options or {}).items()}
        support = Support.of(registry)
        small = support.policy(policy or own.policy).small or {}
        chosen = self._options.get("policy", {})
        self.small = {**small, **chosen} if small.keys() - chosen.keys() else None
        self.reach, self.tokens = Reach(), MANY
        self._swaps = {"policy": policy, "verifier": verifier, "acceptor": acceptor}
        self._drafter = drafter if isinstance(drafter, str) else None
        self._provider: Provider | None = None
        told = support.drafter(self._drafter or own.drafter).options
        given = set(self._options.get("drafter", {}))
        if told:
            self._options["drafter"] = {**told, **self._options.get("drafter", {})}
        given_checkpoint = "checkpoint" in self._options.get("drafter", {})
        if not given_checkpoint:
            shipped = support.drafter(self._drafter or own.drafter).checkpoint
            self._provider = drafter if callable(drafter) else shipped
        known = self._drafter is None or self._drafter in registry.components["drafter"]
        self.any_model = known and not given_checkpoint
        register()
        self._folder = tempfile.mkdtemp()  # of the checkpoints; removed with the subject
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._engines: dict[object, Engine] = {}
        self._plain: dict[object, Engine] = {}
        engine = self.any_engine()
        parts, selection = engine.parts, engine.selection
        self.selection = selection
        self.lossless, self.seed_exact = parts.acceptor.lossless, parts.acceptor.seed_exact
        self.changed = self._changed(registry, own, told, given)
        self.drafts, self.grows = parts.drafter is not None, parts.policy is not None
        whole = getattr(parts.drafter, "vocabulary", None) is None
        self.has_table = set_draft_table(engine, _ANY) and whole
        parsed, growing = selection.parsed.get("policy"), support.policy(selection.names["policy"])
        drafting = support.drafter(selection.names["drafter"])
        learns = drafting.adaptive(selection.parsed.get("drafter")) if self.drafts else False
        self.adaptive = adaptive or learns or growing.adaptive(parsed)
        self.remembers = drafting.remembers
        self.known_values = growing.confidence(parsed) is not None
        self.levels, self.sampled = self._drafted(parsed)
        known = not (self.adaptive or self.sampled)
        self.reference = reference or (growing.reference if known else None)

    def _changed(
        self, registry: Registry, own: Strategy, told: Mapping[str, Any], given: set[str]
    ) -> str:
        """What its plugin asked for that the drafter would not have otherwise."""
        name = self.selection.names["drafter"]
        if name is None:
            return ""
        component = registry.component("drafter", name)
        usual = dict(own.options.get("drafter", {})) if name == own.drafter else {}
        if not self.seed_exact:
            usual = {**component.repeatable, **usual}
        fields = component.options.model_fields
        used = {option: usual.get(option, fields[option].default) for option in told}
        return ", ".join(
            f"{option}={_short(value)} (used with {_short(used[option])})"
            for option, value in told.items()
            if option not in given and value != used[option]
        )

    def _drafted(self, options: Any) -> tuple[int, bool]:
        """The levels of the trees that are drafted where there is much room and the text repeats
        itself, and whether they are sampled."""
        likely = Table(2, 1, ((1.0, 3.0), (3.0, 1.0)))
        case = Case(likely, likely, ((0, 1) * 12,), {"temperature": 1.0, "max_new_tokens": 80})
        levels, sampled = 0, False
        with fake_clock() if self.adaptive else nullcontext():
            running = self.of(case).session().start(case.rows, seed=0, **case.settings)
            for step in islice(running, _PROBED):
                levels = max(levels, step.tree.depth)
                sampled = sampled or step.tree.draws is not Draws.POINT
            running.close()
        most = getattr(options, "depth", 0) if self.adaptive else 0
        return max(levels, most if isinstance(most, int) else 0), sampled

    def describe(self) -> str:
        """What is examined, in one line."""
        said = []
        for role, name in self.selection.names.items():
            if name is None or (role == "policy" and not self.grows):
                continue
            given = self.selection.parsed[role].model_dump(exclude={"checkpoint"})
            values = ", ".join(f"{option}={_short(value)}" for option, value in given.items())
            said.append(f"{role} {name}" + (f" ({values})" if values else ""))
        line = f"{self.strategy}: {'; '.join(said)}"
        if self.changed:
            line += f"; examined with drafter.{self.changed}"
        if self._provider is not None:
            line += "; the drafter with a checkpoint of the suite's own"
        if self.grows and self.small is not None:
            values = ", ".join(f"{option}={_short(value)}" for option, value in self.small.items())
            line += f"; on half of the cases the policy with {values} instead"
        return line

    def any_engine(self) -> Engine:
        """The strategy on some table model."""
        return self.of(Case(_ANY, _ANY, ((0,),)))

    def of(self, case: Case, randomness: Randomness | None = None) -> Engine:
        """The strategy on the case's models, drawing from ``randomness`` if it is given."""
        key = _key(case)
        if key not in self._engines:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DrafterWarning)  # the suite's own need not be good
                self._engines[key] = self._make(case, self._engines.get((key[0], not case.small)))
        engine = self._engines[key]
        if isinstance(model := engine.target.model, TableForCausalLM):
            model.set_table(case.target)
            set_draft_table(engine, case.draft)
        return drawing(engine, randomness)

    def plain(self, case: Case, randomness: Randomness | None = None) -> Engine:
        """Plain decoding of the case's target."""
        engine, key = self.of(case), _key(case)
        if key not in self._plain:
            self._plain[key] = engine.with_strategy("plain")
        return drawing(self._plain[key], randomness)

    def _make(self, case: Case, other: Engine | None) -> Engine:
        """An engine for the case, on the model of the ``other`` one with the policy's other
        options if there is one."""
        options = {role: dict(given) for role, given in self._options.items()}
        if case.small and self.small is not None:
            options["policy"] = dict(self.small)
        if other is not None:
            if self._provider is not None:
                checkpoint = other.selection.options["drafter"]["checkpoint"]
                options.setdefault("drafter", {})["checkpoint"] = checkpoint
            engine = other.with_strategy(
                self.strategy,
                drafter=self._drafter,
                options=options,
                **self._swaps,
            )
            return self._drafting(engine, case)
        logging.disable_progress_bar()
        model: PreTrainedModel
        if case.model:
            model = make_model(CONFIGS[case.model]())
        else:
            model = TableForCausalLM.of(case.target, case.window)
        if self._provider is not None:
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            options.setdefault("drafter", {})["checkpoint"] = self._provider(model, folder)
        engine = Engine(
            model,
            strategy=self.strategy,
            drafter=self._drafter,
            options=options,
            plugins=self._plugins,
            tokenizer=toy_tokenizer(model.config.vocab_size),
            **self._swaps,  # type: ignore[arg-type]
        )
        return self._drafting(engine, case)

    def _drafting(self, engine: Engine, case: Case) -> Engine:
        """The engine, whose table drafter has the bigrams of a model that is no table."""
        if case.model and isinstance(engine.parts.drafter, TableDrafter):
            engine.parts.drafter.distributions = bigrams(engine.target.model)
        return engine


_ANY = Table(3, 0, ((1.0,) * 3,))
# Enumerations of few and of many branches.
FEW, MANY = 1 << 10, 1 << 12
# Steps of the generation that shows how deep trees are.
_PROBED = 4
_LONGEST = 40


def _key(case: Case) -> tuple[object, bool]:
    """Cases of one key share their engine."""
    return case.model or (case.target.size, case.target.vocab_size, case.window), case.small


def _short(value: object) -> str:
    """A value of an option, cut where it is long."""
    written = str(value)
    return written if len(written) <= _LONGEST else f"{written[: _LONGEST - 3]}..."


def drawing(engine: Engine, randomness: Randomness | None) -> Engine:
    """The engine with its generator replaced; itself for None."""
    if randomness is None:
        return engine
    other = copy.copy(engine)
    other.make_randomness = lambda seeds: randomness  # type: ignore[method-assign]
    return other
