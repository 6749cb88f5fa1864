"""The exact law of a strategy's text, and the autoregressive law that it must equal."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from specdec.copying import copied
from specdec.custom import listed
from specdec.engine import Engine
from specdec.law import Law
from specdec.roles import Verifier
from specdec.session import Generation
from specdec.state import State
from specdec.target import HFTarget
from specdec.testing.cases import Case
from specdec.testing.enumeration import LIMIT, EnumeratedRandomness, outcomes
from specdec.testing.letters import letters
from specdec.testing.subject import drawing
from specdec.testing.ticking import ticking
from specdec.tree import DraftTree
from specdec.verification import Verification

T = TypeVar("T")
Text = tuple[int, ...]
TextLaw = dict[Text, float]


class Autoregressive:
    """The target's own law over continuations of the first prompt, by the chain rule.

    It uses the table and the processors that transformers' ``generate`` would make of the
    settings, called with every prefix as it is: nothing of specdec's, no model, tree or batch.
    """

    def __init__(self, case: Case, engine: Engine) -> None:
        self._case, self._prompt = case, case.prompts[0]
        settings = dict(case.settings)
        temperature = float(settings.pop("temperature"))
        custom = LogitsProcessorList(settings.pop("logits_processor", []))
        self._horizon, self._eos = settings["max_new_tokens"], settings.pop("eos_token_id")
        self._stop = settings.pop("stop", [])
        self._greedy = temperature == 0
        config = GenerationConfig(do_sample=not self._greedy, **settings)
        config.temperature = None if self._greedy else temperature
        config._eos_token_tensor = torch.tensor(self._eos) if self._eos else None
        self._processors = engine.target.model._get_logits_processor(
            config, input_ids_seq_length=len(self._prompt), logits_processor=custom
        )
        self._known: dict[Text, list[float]] = {}

    def next_token(self, texts: list[Text]) -> None:
        """Work out the laws after ``texts``, all of one length."""
        tokens = torch.tensor([[*self._prompt, *text] for text in texts])
        scores = self._processors(tokens, self._case.target.after(tokens))
        if self._greedy:
            probs = torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).double()
        else:
            probs = scores.softmax(-1)
        self._known.update(zip(texts, probs.tolist(), strict=True))

    def complete(self, law: TextLaw, ended: frozenset[Text] = frozenset()) -> TextLaw:
        """Let the target go on from every text until it ends.

        Args:
            law: texts with their probabilities.
            ended: texts that have ended already whatever the rules say.
        """
        done: TextLaw = defaultdict(float)
        queue: dict[int, TextLaw] = defaultdict(lambda: defaultdict(float))
        for text, weight in law.items():
            queue[len(text)][text] += weight
        for length in range(max(queue, default=0) + self._horizon + 1):
            going = {}
            for text, weight in queue.pop(length, {}).items():
                if text in ended or self._ends(text):
                    done[text] += weight
                else:
                    going[text] = weight
            if unknown := [text for text in going if text not in self._known]:
                self.next_token(unknown)
            for text, weight in going.items():
                for token, p in enumerate(self._known[text]):
                    if p > 0:
                        longer = (*text, token)
                        queue[length + 1][longer] += weight * p
        return dict(done)

    def _ends(self, text: Text) -> bool:
        """Whether a text is at its end; one that goes on behind a stop string is past it."""
        if len(text) >= self._horizon or (text and text[-1] in self._eos):
            return True
        return any(string in letters(text) for string in self._stop)

    def law(self) -> TextLaw:
        """The law of the whole continuation."""
        return self.complete({(): 1.0})


def only_asked(law: Law, asking: Tensor) -> Law:
    """``law`` with a point mass for rows not in ``asking [B]``: theirs is undefined."""
    if law.weights is None:
        return law
    first = torch.full_like(law.weights, float("-inf"))
    first[:, 0] = 0.0
    return Law.of(torch.where(asking[:, None], law.weights, first))


class _Watching(Verifier):
    """Gives rows that do not ask for their law a point mass: drawing from it branches nothing."""

    def __init__(self, inner: Verifier) -> None:
        self._inner = inner
        self.uses_cache = inner.uses_cache  # type: ignore[misc]

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        verification = self._inner.verify(target, state, tree)
        ask = verification.law

        def law(node: Tensor, asking: Tensor) -> Law:
            return only_asked(ask(node, asking), asking)

        vars(verification)["law"] = law
        return verification


def generation(
    engine: Engine, case: Case, randomness: EnumeratedRandomness, branches: int
) -> Generation:
    """The case's first row ``branches`` times among its neighbours: it is never the batch's first.

    Without neighbours there is nobody else to be the first.
    """
    watched = drawing(engine, randomness)
    watched.parts = replace(engine.parts, verifier=_Watching(engine.parts.verifier))
    own, *others = case.rows
    above, below = others[-1:], others[:-1]
    rows = above + [own] * branches + below
    settings = dict(case.settings)
    custom = listed(settings.pop("logits_processor", None))
    # Branches are one prompt: with processors of its own each is cheap, however many there are.
    started = watched.session().start(
        rows, seed=0, logits_processor_by_prompt=lambda row: copied(custom), **settings
    )
    randomness.before, randomness.active = len(above), started.state.active
    randomness.coupled = engine.parts.acceptor.seed_exact
    return started


def step_law(engine: Engine, case: Case, adaptive: bool = False) -> tuple[TextLaw, frozenset[Text]]:
    """The exact law of the tokens of one step, and those texts that it ends.

    Args:
        adaptive: whether drafts depend on how earlier drafts fared, other rows' too.
    """

    def run(
        engine: Engine, randomness: EnumeratedRandomness, branches: int
    ) -> list[tuple[Text, bool]]:
        step = next(iter(generation(engine, case, randomness, branches)))
        ends, own = [reason is not None for reason in step.finished], randomness.branches
        return list(zip(map(tuple, step.new_tokens[own]), ends[own], strict=True))

    found, weights = outcomes(_apart(engine, run) if adaptive else partial(run, engine))
    law: TextLaw = defaultdict(float)
    for (text, _), weight in zip(found, weights.tolist(), strict=True):
        law[text] += weight
    return dict(law), frozenset(text for text, ended in found if ended)


def sequence_law(engine: Engine, case: Case, limit: int = LIMIT, adaptive: bool = False) -> TextLaw:
    """The exact law of whole sequences, over every draw of every step.

    Args:
        adaptive: as in :func:`step_law`.
    """

    def run(engine: Engine, randomness: EnumeratedRandomness, branches: int) -> list[Text]:
        started = generation(engine, case, randomness, branches)
        for _ in started:
            randomness.active = started.state.active
        own = randomness.branches
        return [tuple(started.new_tokens(row)) for row in range(own.start, own.stop)]

    texts, weights = outcomes(_apart(engine, run) if adaptive else partial(run, engine), limit)
    law: TextLaw = defaultdict(float)
    for text, weight in zip(texts, weights.tolist(), strict=True):
        law[text] += weight
    return dict(law)


def _apart(
    engine: Engine, run: Callable[[Engine, EnumeratedRandomness, int], list[T]]
) -> Callable[[EnumeratedRandomness, int], list[T]]:
    """``run`` for one branch at a time, each from what the policy has learned so far.

    In one batch the branches would teach each other, and no replay would draft as the run before.
    """

    def each(randomness: EnumeratedRandomness, branches: int) -> list[T]:
        alone = [EnumeratedRandomness(script[None]) for script in randomness.scripts]
        found, other = [], copy.copy(engine)
        for one in alone:
            other.parts = replace(engine.parts, policy=copy.deepcopy(engine.parts.policy))
            with ticking():
                found += run(other, one, 1)
        randomness.open = _together([one.open for one in alone])
        randomness.replayed = _together([one.replayed for one in alone])
        return found

    return each


def _together(laws: list[Tensor | None]) -> Tensor | None:
    """The laws of one draw of several branches; a branch that has none takes the first outcome."""
    some = next((law for law in laws if law is not None), None)
    if some is None:
        return None
    point = torch.zeros_like(some)
    point[:, 0] = 1.0
    return torch.cat([point if law is None else law for law in laws])


def difference(law: TextLaw, reference: TextLaw) -> tuple[float, Text]:
    """The largest difference of a probability, and the text that has it."""
    texts = law.keys() | reference.keys()
    return max((abs(law.get(t, 0.0) - reference.get(t, 0.0)), t) for t in texts)


def total_variation(law: TextLaw, reference: TextLaw) -> float:
    """Half the sum of all differences: 0 for equal laws, 1 for laws that share nothing."""
    texts = law.keys() | reference.keys()
    return sum(abs(law.get(t, 0.0) - reference.get(t, 0.0)) for t in texts) / 2
