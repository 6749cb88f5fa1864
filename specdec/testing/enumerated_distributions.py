"""The exact distribution of a strategy's text, and the autoregressive distribution that it must
equal."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from specdec.decoding.interfaces import TreeDrafter, Verifier
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.distribution import Distribution
from specdec.engine import Engine
from specdec.generation import Generation
from specdec.models.hf_target import HFTarget
from specdec.request.caller_processors import listed
from specdec.request.copying import copied
from specdec.testing.cases import Case
from specdec.testing.enumeration import EnumeratedRandomness, outcomes, outcomes_apart
from specdec.testing.fake_clock import fake_clock
from specdec.testing.subject import Subject, drawing
from specdec.testing.toy_tokenizer import toy_text

Text = tuple[int, ...]
# Probabilities by text.
TextDistribution = dict[Text, float]
# The most branches: of a step, and less as their texts are longer and their vocabularies larger.
_NUMBERS, _FEWEST = 1 << 21, 16


class Autoregressive:
    """The target's own distribution over continuations of the first prompt, by the chain rule.

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
        self._known: dict[Text, dict[int, float]] = {}

    def against(self, *distributions: Enumerated) -> list[TextDistribution]:
        """How probable each distribution makes it that a text begins so, if the target goes on from
        what was committed; last, how probable the target itself makes it.

        The beginnings are those that some committed text has, or shares but for its last token.
        Past them the target alone decides, so that whole texts have equal distributions if these
        are equal.
        """
        going: dict[Text, set[int]] = {(): set()}
        for distribution in distributions:
            for text in distribution.distribution:
                for length, token in enumerate(text):
                    going.setdefault(text[:length], set()).add(token)
                if text in distribution.ended:
                    going.setdefault(text, set())
        by_length: dict[int, list[Text]] = defaultdict(list)
        for text in going:
            by_length[len(text)].append(text)
        for texts in by_length.values():
            self._know([text for text in texts if not self._ends(text)])
        order = sorted(going, key=len)
        own = Enumerated({(): 1.0}, frozenset(), 0, 0)
        return [
            self._beginnings(distribution, order, going) for distribution in (*distributions, own)
        ]

    def _beginnings(
        self, distribution: Enumerated, order: list[Text], going: dict[Text, set[int]]
    ) -> TextDistribution:
        committed: TextDistribution = defaultdict(float)
        for text, weight in distribution.distribution.items():
            for length in range(len(text) + 1):
                committed[text[:length]] += weight
        added: TextDistribution = defaultdict(float)  # by the target, to what was committed before
        found: TextDistribution = {}
        for text in order:
            if ends := self._ends(text):
                found[text] = committed[text] + added[text]
            here = 0.0 if text in distribution.ended else distribution.distribution.get(text, 0.0)
            onward = 0.0 if ends else added[text] + here
            chances = {} if ends else self._known[text]
            for token in going[text] | chances.keys():
                longer = (*text, token)
                added[longer] += onward * chances.get(token, 0.0)
                if longer not in going:
                    found[longer] = committed[longer] + added[longer]
        return found

    def _know(self, texts: list[Text]) -> None:
        """Work out the distributions after ``texts``, all of one length."""
        if not (unknown := [text for text in texts if text not in self._known]):
            return
        tokens = torch.tensor([[*self._prompt, *text] for text in unknown])
        scores = self._processors(tokens, self._case.target.after(tokens))
        if self._greedy:
            probs = torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).double()
        else:
            probs = scores.softmax(-1)
        found: list[dict[int, float]] = [{} for _ in unknown]
        where = probs.nonzero()
        pairs = zip(where.tolist(), probs[where.unbind(1)].tolist(), strict=True)
        for (row, token), p in pairs:
            found[row][token] = p
        self._known.update(zip(unknown, found, strict=True))

    def _ends(self, text: Text) -> bool:
        """Whether a text is at its end; one that goes on behind a stop string is past it."""
        if len(text) >= self._horizon or (text and text[-1] in self._eos):
            return True
        return any(string in toy_text(text) for string in self._stop)


def only_asked(distribution: Distribution, needed: Tensor) -> Distribution:
    """``distribution`` with a point mass for rows not in ``needed [B]``: theirs is undefined."""
    if distribution.weights is None:
        return distribution
    first = torch.full_like(distribution.weights, float("-inf"))
    first[:, 0] = 0.0
    return Distribution.of(torch.where(needed[:, None], distribution.weights, first))


class _Watching(Verifier):
    """Gives rows that do not ask for their distribution a point mass: drawing from it branches
    nothing."""

    def __init__(self, inner: Verifier) -> None:
        self._inner = inner
        self.uses_cache = inner.uses_cache  # type: ignore[misc]

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        verification = self._inner.verify(target, state, tree)
        ask = verification.distribution

        def distribution(node: Tensor, needed: Tensor) -> Distribution:
            return only_asked(ask(node, needed), needed)

        vars(verification)["distribution"] = distribution
        return verification


def generation(
    engine: Engine, case: Case, randomness: EnumeratedRandomness, branches: int
) -> Generation:
    """The case's first row ``branches`` times among its neighbours: it is never the batch's first.

    Without neighbours there is nobody else to be the first.
    """
    watched = drawing(engine, randomness)._with_parts(verifier=_Watching(engine.parts.verifier))
    own, *others = case.rows
    above, below = others[len(others) // 2 :], others[: len(others) // 2]
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


@dataclass(frozen=True)
class Enumerated:
    """The exact distribution of what was committed, over every outcome of every draw.

    Attributes:
        distribution: texts with their probabilities.
        ended: those of them that have ended.
        levels: the deepest level at which a draft token was accepted or rejected.
        steps: the most steps that a text took.
    """

    distribution: TextDistribution
    ended: frozenset[Text]
    levels: int
    steps: int


class _Branch(NamedTuple):
    text: Text
    ended: bool
    levels: int
    steps: int


def step_distribution(subject: Subject, case: Case) -> Enumerated:
    """The exact distribution of the tokens of one step.

    Raises:
        EnumerationError: it has more outcomes than are enumerated.
    """
    return _enumerated(subject, case, steps=1)


def sequence_distribution(subject: Subject, case: Case) -> Enumerated:
    """The exact distribution of whole sequences, over every draw of every step.

    Raises:
        EnumerationError: it has more outcomes than are enumerated.
    """
    return _enumerated(subject, case, steps=None)


def _enumerated(subject: Subject, case: Case, steps: int | None) -> Enumerated:
    engine, new = subject.of(case), case.settings["max_new_tokens"]
    tokens = (new if steps is None else new // 2) + 1 + len(case.prompts[0]) // 8
    most = min(subject.tokens // tokens, _NUMBERS // case.target.vocab_size)
    limit = max(_FEWEST, most)

    def run(engine: Engine, randomness: EnumeratedRandomness, branches: int) -> list[_Branch]:
        started = generation(engine, case, randomness, branches)
        own, levels = randomness.branches, [0] * branches
        took = [0] * branches
        for step in islice(started, steps):
            randomness.active = started.state.active
            for branch, row in enumerate(range(own.start, own.stop)):
                levels[branch] = max(levels[branch], step.tried[row])
                took[branch] += bool(step.new_tokens[row])
        started.close()
        texts = [tuple(started.new_tokens(row)) for row in range(own.start, own.stop)]
        ends = [reason is not None for reason in started.state.finish_reasons[own]]
        return list(map(_Branch, texts, ends, levels, took))

    if subject.adaptive:
        found, weights = outcomes_apart(partial(_alone, engine, run), limit)
    else:
        found, weights = outcomes(partial(run, engine), limit)
    distribution: TextDistribution = defaultdict(float)
    for branch, weight in zip(found, weights.tolist(), strict=True):
        distribution[branch.text] += weight
    return Enumerated(
        dict(distribution),
        frozenset(branch.text for branch in found if branch.ended),
        max(branch.levels for branch in found),
        max(branch.steps for branch in found),
    )


def _alone(
    engine: Engine,
    run: Callable[[Engine, EnumeratedRandomness, int], list[_Branch]],
    randomness: EnumeratedRandomness,
) -> _Branch:
    """One branch, from what policy and drafter have learned so far.

    In one batch the branches would teach each other, and no replay would draft as the run before.
    """
    parts = engine.parts
    own: dict[str, Any] = {"policy": copy.deepcopy(parts.policy)}
    if isinstance(parts.drafter, TreeDrafter):  # others keep what they learn in the policy
        own["drafter"] = copy.deepcopy(parts.drafter, {id(engine.target): engine.target})
    other = engine._with_parts(**own)
    with fake_clock():
        (branch,) = run(other, randomness, 1)
    return branch


def difference(distribution: TextDistribution, reference: TextDistribution) -> tuple[float, Text]:
    """The largest difference of a probability, and the text that has it."""
    texts = distribution.keys() | reference.keys()
    return max((abs(distribution.get(t, 0.0) - reference.get(t, 0.0)), t) for t in texts)


def total_variation(distribution: TextDistribution, reference: TextDistribution) -> float:
    """Half the sum of all differences: 0 for equal distributions, 1 for distributions that share
    nothing."""
    texts = distribution.keys() | reference.keys()
    return sum(abs(distribution.get(t, 0.0) - reference.get(t, 0.0)) for t in texts) / 2
