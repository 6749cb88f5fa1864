"""The exact law of a strategy's text, and the autoregressive law that it must equal."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import torch
from torch import Tensor

from specdec.engine import Engine
from specdec.law import Law
from specdec.processors import Prefix
from specdec.roles import Verifier
from specdec.sampling import resolve
from specdec.session import Generation
from specdec.state import State
from specdec.target import HFTarget
from specdec.testing.cases import Case
from specdec.testing.enumeration import LIMIT, EnumeratedRandomness, outcomes
from specdec.testing.letters import letters
from specdec.testing.subject import drawing
from specdec.tree import DraftTree
from specdec.verification import Verification

Text = tuple[int, ...]
TextLaw = dict[Text, float]


class Autoregressive:
    """The target's own law over continuations of the first prompt, by the chain rule.

    It uses the table and the processors alone: no model, cache, tree or batch.
    """

    def __init__(self, case: Case, engine: Engine) -> None:
        self._case, self._prompt = case, case.prompts[0]
        apart = ("logits_processor", "stop")
        sampling = resolve(
            engine.generation_config,
            {name: value for name, value in case.settings.items() if name not in apart},
            **{name: case.settings.get(name) for name in apart},
            default_new_tokens=1,
        )
        self._horizon = sampling.max_new_tokens or 1
        self._eos, self._stop = sampling.eos, sampling.stop
        self._processors = sampling.processors([len(self._prompt)], torch.device("cpu"))
        self._known: dict[Text, list[float]] = {}

    def next_token(self, texts: list[Text]) -> None:
        """Work out the laws after ``texts``, all of one length."""
        tokens = torch.tensor([[*self._prompt, *text] for text in texts])
        ones = torch.ones(len(texts), dtype=torch.int64)
        prefix = Prefix(tokens, ones * tokens.shape[1], ones.bool())
        law = self._processors.law(self._case.target.after(tokens), lambda: prefix)
        self._known.update(zip(texts, law.probs.double().tolist(), strict=True))

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


class _Watching(Verifier):
    """Tells the enumeration which rows the acceptor is deciding on."""

    def __init__(self, inner: Verifier, randomness: EnumeratedRandomness) -> None:
        self._inner, self._randomness = inner, randomness
        self.uses_cache = inner.uses_cache  # type: ignore[misc]

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        verification = self._inner.verify(target, state, tree)
        self._randomness.asking = verification.active
        ask = verification.law

        def law(node: Tensor, asking: Tensor) -> Law:
            self._randomness.asking = asking
            return ask(node, asking)

        vars(verification)["law"] = law
        return verification


def generation(
    engine: Engine, case: Case, randomness: EnumeratedRandomness, branches: int
) -> Generation:
    """The case's first row ``branches`` times, then its neighbours."""
    watched = drawing(engine, randomness)
    watched.parts = replace(engine.parts, verifier=_Watching(engine.parts.verifier, randomness))
    first, *others = case.rows
    started = watched.session().start([first] * branches + others, seed=0, **case.settings)
    randomness.drafting = started.state.active
    return started


def step_law(engine: Engine, case: Case) -> tuple[TextLaw, frozenset[Text]]:
    """The exact law of the tokens of one step, and those texts that it ends."""

    def run(randomness: EnumeratedRandomness, branches: int) -> list[tuple[Text, bool]]:
        step = next(iter(generation(engine, case, randomness, branches)))
        ends = [reason is not None for reason in step.finished]
        return list(zip(map(tuple, step.new_tokens[:branches]), ends[:branches], strict=True))

    found, weights = outcomes(run)
    law: TextLaw = defaultdict(float)
    for (text, _), weight in zip(found, weights.tolist(), strict=True):
        law[text] += weight
    return dict(law), frozenset(text for text, ended in found if ended)


def sequence_law(engine: Engine, case: Case, limit: int = LIMIT) -> TextLaw:
    """The exact law of whole sequences, over every draw of every step."""

    def run(randomness: EnumeratedRandomness, branches: int) -> list[Text]:
        started = generation(engine, case, randomness, branches)
        for _ in started:
            randomness.drafting = started.state.active
        return [tuple(started.new_tokens(row)) for row in range(branches)]

    texts, weights = outcomes(run, limit)
    law: TextLaw = defaultdict(float)
    for text, weight in zip(texts, weights.tolist(), strict=True):
        law[text] += weight
    return dict(law)


def difference(law: TextLaw, reference: TextLaw) -> tuple[float, Text]:
    """The largest difference of a probability, and the text that has it."""
    texts = law.keys() | reference.keys()
    return max((abs(law.get(t, 0.0) - reference.get(t, 0.0)), t) for t in texts)


def total_variation(law: TextLaw, reference: TextLaw) -> float:
    """Half the sum of all differences: 0 for equal laws, 1 for laws that share nothing."""
    texts = law.keys() | reference.keys()
    return sum(abs(law.get(t, 0.0) - reference.get(t, 0.0)) for t in texts) / 2
