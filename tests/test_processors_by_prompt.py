"""Logits processors and the prompts of a call: each its own row, its own state, its own object."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import VOCAB
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import logits_process as hf

from examples import examples
from specdec import Engine, batching
from specdec.errors import OptionError, SpecdecError
from specdec.generation import Generation, GenerationSetup
from specdec.request import caller_processors, shared_processors
from specdec.request.copying import copied
from specdec.request.request import Request

PROMPTS = [*tiny.PROMPTS, [3, 3, 8], [12, 40]]
SEEDS = [5, 6, 7, 8, 9]
LIMITED: dict[str, Any] = {"max_new_tokens": 14}
NAMES = ["plain", "lookup", "eagle2", "eagle2+draft_model", "rejection"]


def each_kind(kinds: dict[str, Any]) -> Any:
    """Every kind of processor under some strategy at some temperature; the slow rest."""
    cases = []
    for number, kind in enumerate(kinds):
        for place, name in enumerate(NAMES):
            for temperature in (0.0, 1.0):
                now = number % len(NAMES) == place and number % 2 == int(temperature)
                marks = [] if now else [pytest.mark.slow]
                cases.append(pytest.param(kind, name, temperature, marks=marks))
    return pytest.mark.parametrize(("kind", "name", "temperature"), cases)


@pytest.fixture
def engine(name: str, plain: Engine, head: Path, draft: Path) -> Engine:
    if name == "plain":
        return plain
    if name == "lookup":
        return plain.with_strategy("lookup")
    if name == "rejection":
        return plain.with_strategy("draft_model", drafter=draft)
    return tiny.engine(plain, name, head if tiny.needs_head(name) else draft)


# Processors that look at the row.


def allowed(row: int, tokens: Tensor) -> list[int]:
    """What may follow depends on the row and on the last token."""
    return [*range((row + int(tokens[-1])) % 5, VOCAB, 5)]


class Looks(LogitsProcessor):
    """The same, by hand."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row, tokens in enumerate(input_ids):
            kept = torch.full_like(scores[row], float("-inf"))
            kept[allowed(row, tokens)] = 0
            scores[row] += kept
        return scores


class Biases(LogitsProcessor):
    """A tensor with a row for each prompt; it cannot be called for one prompt."""

    bias = 3 * torch.randn(
        len(PROMPTS), VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + self.bias


class Machines(LogitsProcessor):
    """A machine for each row, which goes on with every token."""

    def __init__(self) -> None:
        self.at: list[int] | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.at is None:
            self.at = list(range(len(input_ids)))
        else:
            last = input_ids[:, -1].tolist()
            self.at = [3 * at + last[row] + row for row, at in enumerate(self.at)]
        for row, at in enumerate(self.at):
            scores[row, at % 4 :: 4] -= 6.0
        return scores


LOOKING: dict[str, Callable[[], Any]] = {
    "prefix function": lambda: hf.PrefixConstrainedLogitsProcessor(allowed, 1),
    "loop over rows": Looks,
    "a bias for each row": Biases,
    "a machine for each row": Machines,
    "encoder ids": lambda: hf.EncoderRepetitionPenaltyLogitsProcessor(
        0.1, torch.arange(4 * len(PROMPTS)).view(len(PROMPTS), 4)
    ),
    "encoder n-grams": lambda: hf.EncoderNoRepeatNGramLogitsProcessor(
        1, torch.arange(12 * len(PROMPTS)).view(len(PROMPTS), 12) % VOCAB
    ),
    "ignored prompts": lambda: hf.RepetitionPenaltyLogitsProcessor(
        9.0, torch.tensor([0, 9, 2, 9, 1])
    ),
}

# Processors with a state.


def damped(count: Any, scores: Tensor) -> Tensor:
    """By a number, or a tensor with one for each row."""
    columns = torch.arange(scores.shape[1])
    return scores - 8.0 * (columns % 5 == torch.as_tensor(count).view(-1, 1) % 5)


class Counts(LogitsProcessor):
    def __init__(self) -> None:
        self.calls: Any = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls = self.calls + 1 + input_ids[:, -1] % 2
        return damped(self.calls, scores)


def closure() -> Any:
    calls = 0

    def count(input_ids: Tensor, scores: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return damped(calls, scores)

    return count


def two_closures() -> Any:
    """One reads what the other has written."""
    seen: list[Tensor] = []

    def note(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(input_ids[:, -1])
        return scores

    return [note, lambda input_ids, scores: damped(sum(seen), scores)]


class Holds(LogitsProcessor):
    """Its state is in a closure that it holds."""

    def __init__(self) -> None:
        self.inner = {"count": closure()}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.inner["count"](input_ids, scores)


class Sized(LogitsProcessor):
    """As grammars do it: one state for each row of the first call, of no other number."""

    def __init__(self) -> None:
        self.states: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.states is None:
            self.states = torch.zeros(len(input_ids), dtype=torch.int64)
        assert len(self.states) == len(input_ids)
        self.states += input_ids[:, -1] + 1
        tokens = torch.arange(scores.shape[1])
        return scores.masked_fill((tokens + self.states[:, None]) % 4 == 0, float("-inf"))


def by_default(input_ids: Tensor, scores: Tensor, seen: list[int]) -> Tensor:
    seen.append(0)
    return damped(len(seen), scores)


STATEFUL: dict[str, Callable[[], Any]] = {
    "an attribute": Counts,
    "a closure": closure,
    "closures with one state": two_closures,
    "a closure that it holds": Holds,
    "a bound method": lambda: Counts().__call__,
    "a partial": lambda: partial(by_default, seen=[]),
    "a state for each row": Sized,
    "a list of transformers": lambda: LogitsProcessorList([LogitsProcessorList([Counts()])]),
    "SynthID": lambda: hf.SynthIDTextWatermarkLogitsProcessor(
        3, [7, 11, 13], 64, 0, 16, torch.device("cpu")
    ),
}


def alone(engine: Engine, make: Callable[[int], Any], **chosen: Any) -> list[list[int]]:
    """The text of every prompt alone, with a processor of its own."""
    return [
        tiny.tokens(engine, prompt, seed=[seed], logits_processor=make(row), **LIMITED, **chosen)
        for row, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True))
    ]


class Only:
    """The treatment that a processor for all prompts has for one of them, for that one alone."""

    def __init__(self, processor: Any, row: int) -> None:
        self.processor, self.row = processor, row

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        every = [tensor.repeat(len(PROMPTS), 1) for tensor in (input_ids, scores)]
        return self.processor(*every)[self.row, None]


def ways(engine: Engine, **chosen: Any) -> dict[str, list[list[int]]]:
    """The texts of all prompts in every way in which specdec runs several at a time."""
    together = {**chosen, "seed": SEEDS, **LIMITED}
    found = {"one batch": tiny.tokens(engine, PROMPTS, **together)}
    found["batches of 2"] = tiny.tokens(engine, PROMPTS, batch_size=2, **together)
    session = engine.session()
    found["a session"] = [result.token_ids for result in session.generate(PROMPTS, **together)]
    return found


def ends(texts: list[list[int]]) -> list[int]:
    """Tokens at which the rows end at different times."""
    return [texts[0][3], texts[1][9], texts[2][6]]


@each_kind(LOOKING)
def test_a_processor_that_looks_at_the_row_gets_its_prompts(
    plain: Engine, engine: Engine, kind: str, temperature: float
) -> None:
    make, warm = LOOKING[kind], {"temperature": temperature}
    due = {**warm, "eos_token_id": ends(alone(plain, lambda row: Only(make(), row), **warm))}
    wanted = alone(engine, lambda row: Only(make(), row), **due)
    assert wanted != alone(engine, lambda row: Only(make(), 0), **due)
    for way, texts in ways(engine, logits_processor=make(), **due).items():
        assert texts == wanted, way


@each_kind(STATEFUL)
def test_a_processor_with_a_state_treats_every_prompt_as_if_alone(
    plain: Engine, engine: Engine, kind: str, temperature: float
) -> None:
    make, warm = STATEFUL[kind], {"temperature": temperature}
    due = {**warm, "eos_token_id": ends(alone(plain, lambda row: make(), **warm))}
    wanted = alone(engine, lambda row: make(), **due)
    assert wanted != alone(engine, lambda row: None, **due)
    for way, texts in ways(engine, logits_processor=make(), **due).items():
        assert texts == wanted, way
    each = ways(engine, logits_processor_by_prompt=lambda prompt: make(), **due)
    assert all(texts == wanted for texts in each.values())


@pytest.mark.parametrize("kind", ["prefix function", "loop over rows", "a bias for each row"])
def test_rows_are_treated_as_by_transformers(plain: Engine, kind: str) -> None:
    prompts = [[5, 9, 1], [4, 2, 8], [6, 7, 1], [3, 3, 8], [12, 40, 2]]
    tokens = torch.tensor(prompts)
    out = plain.target.model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        logits_processor=[LOOKING[kind]()],
    )
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0, "eos_token_id": []}
    texts = tiny.tokens(plain, prompts, logits_processor=LOOKING[kind](), **settings)
    assert texts == out[:, 3:].tolist()


@examples(2, many=12)
@given(
    first=st.integers(0, 50),
    temperature=st.sampled_from([0.0, 1.0]),
    size=st.integers(1, len(PROMPTS)),
    picks=st.lists(st.sampled_from([None, *STATEFUL]), min_size=5, max_size=5),
)
def test_every_prompt_has_what_was_given_for_it(
    dynamic: Engine, first: int, temperature: float, size: int, picks: list[str | None]
) -> None:
    seeds = list(range(first, first + len(PROMPTS)))
    warm = {"temperature": temperature, "max_new_tokens": 9}

    def make(prompt: int) -> Any:
        name = picks[prompt]
        return name and STATEFUL[name]()

    wanted = [
        tiny.tokens(dynamic, prompt, seed=[seed], logits_processor=make(row), **warm)
        for row, (prompt, seed) in enumerate(zip(PROMPTS, seeds, strict=True))
    ]
    for by_prompt in (make, [make(row) for row in range(len(PROMPTS))]):
        texts = tiny.tokens(
            dynamic,
            PROMPTS,
            seed=seeds,
            batch_size=size,
            logits_processor_by_prompt=by_prompt,
            **warm,
        )
        assert texts == wanted


def test_one_prompt_uses_the_processor_itself_and_its_state_stays(dynamic: Engine) -> None:
    """As transformers does: what it has kept is there afterwards, and in the next call."""
    settings: dict[str, Any] = {"max_new_tokens": 5, "temperature": 0, "eos_token_id": []}
    model, given_there, given_here = dynamic.target.model, Counts(), Counts()
    for _ in range(2):
        wanted = tiny.greedy_reference(
            model, PROMPTS[0], 5, logits_processor=LogitsProcessorList([given_there])
        )
        got = tiny.tokens(dynamic, PROMPTS[0], logits_processor=given_here, **settings)
        assert got == wanted
    assert given_here.calls == given_there.calls > 10
    assert list(dynamic.session().generate([PROMPTS[0]], logits_processor=given_here, **settings))
    assert given_here.calls > given_there.calls


def test_several_prompts_leave_the_processor_as_it_was(dynamic: Engine) -> None:
    own = Counts()
    first = tiny.tokens(dynamic, PROMPTS, seed=SEEDS, logits_processor=own, **LIMITED)
    assert own.calls == 0
    assert tiny.tokens(dynamic, PROMPTS, seed=SEEDS, logits_processor=own, **LIMITED) == first


def test_a_listed_processor_is_the_one_that_is_called(plain: Engine) -> None:
    own = [Counts() for _ in PROMPTS]
    plain.generate(PROMPTS, logits_processor_by_prompt=own, max_new_tokens=4, eos_token_id=[])
    assert all(4 <= each.calls <= 8 for each in own)


def test_streams_and_sessions_take_processors_by_prompt(dynamic: Engine) -> None:
    settings: dict[str, Any] = {"seed": 1, **LIMITED}
    wanted = dynamic.generate("ABC", logits_processor=Counts(), **settings).text
    stream = dynamic.stream("ABC", logits_processor_by_prompt=[Counts()], **settings)
    assert "".join(stream) == wanted
    session = dynamic.session()
    turns = session.generate("ABC", logits_processor_by_prompt=lambda prompt: Counts(), **settings)
    assert turns.text == wanted


# What cannot be right is refused.


class Locked(Counts):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class AddsUp(Counts):
    """It counts over the rows of a call."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += len(input_ids)
        return damped(self.calls, scores)


COUNTED = [0]


def in_a_global(input_ids: Tensor, scores: Tensor) -> Tensor:
    COUNTED[0] += 1
    return damped(COUNTED[0], scores)


class First(LogitsProcessor):
    """Written for one prompt."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[0, :10] -= 5.0
        return scores


class One(First):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        assert len(scores) == 1
        return super().__call__(input_ids, scores)


class TooFew(LogitsProcessor):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row in range(len(scores)):
            scores[row, [[1], [2]][row]] -= 5.0
        return scores


class Wrong(LogitsProcessor):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores[:1]


def avoids_rows_before(input_ids: Tensor, scores: Tensor) -> Tensor:
    """The first row is as if alone."""
    for row in range(len(scores)):
        scores[row, input_ids[:row, -1]] = -1e9
    return scores


def centred(input_ids: Tensor, scores: Tensor) -> Tensor:
    """The same for equal rows however many they are."""
    return damped(1, scores) - scores.mean(dim=0)


class CountsFirst(Counts):
    """It counts by the first row, which is the whole of a call with one prompt."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += 1 + int(input_ids[0, -1] % 2)
        return damped(self.calls, scores)


class FirstsNew(LogitsProcessor):
    """At the first call there is nothing new yet."""

    prompt: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.prompt is None:
            self.prompt = input_ids.shape[1]
        return scores.index_fill(1, input_ids[0, self.prompt :], float("-inf"))


REFUSED: dict[str, tuple[Any, str]] = {
    "reads new tokens of the first row": (FirstsNew(), "FirstsNew cannot serve 5.*mixes rows"),
    "reads the first row": (CountsFirst(), "CountsFirst cannot serve 5 prompts.*mixes rows"),
    "looks at rows before": (avoids_rows_before, "avoids_rows_before cannot.*mixes rows.*_by_prom"),
    "means over rows": (centred, "centred cannot serve 5 prompts.*mixes rows"),
    "cannot be copied": (Locked(), "Locked cannot serve 5 prompts.*cannot be copied.*_by_prompt"),
    "adds up over rows": (AddsUp(), "AddsUp cannot serve 5 prompts.*mixes rows"),
    "state in a global": (in_a_global, "in_a_global cannot serve 5 prompts.*keeps state where"),
    "for one prompt": (First(), "First cannot serve 5 prompts.*the first row alone"),
    "asserts one row": (One(), "One cannot serve 5 prompts.*called with 5 rows.*AssertionError"),
    "too few rows": (TooFew(), "TooFew cannot serve 5 prompts.*IndexError"),
    "returns one row": (Wrong(), r"Wrong cannot serve 5 prompts.*must return scores \[5, 60\]"),
    "guidance in a batch": (
        hf.UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, None),
        "UnbatchedClassifierFreeGuidanceLogitsProcessor.*decode them one at a time",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_processor_that_prompts_cannot_share_is_refused(plain: Engine, kind: str) -> None:
    processor, said = REFUSED[kind]
    with pytest.raises(OptionError, match=said):
        plain.generate(PROMPTS, logits_processor=processor, max_new_tokens=4)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "several rows for a text": (
        {"logits_processor": hf.ClassifierFreeGuidanceLogitsProcessor(2.0)},
        "takes several rows of scores for one text",
    ),
    "beams": (
        {"logits_processor": hf.PrefixConstrainedLogitsProcessor(allowed, 2)},
        "num_beams=2, and specdec has no beam search",
    ),
    "a factory for all": (
        {"logits_processor": lambda prompt: Counts()},
        "given as logits_processor_by_prompt",
    ),
    "a class": ({"logits_processor": Counts}, "must be transformers processors"),
    "a list for each": ({"logits_processor": [[Counts()]]}, "logits_processor_by_prompt"),
    "too short": (
        {"logits_processor_by_prompt": [Counts()]},
        "has 1 entries for 5 prompts: it needs one for each",
    ),
    "one for all": (
        {"logits_processor_by_prompt": [Counts()] * 5},
        "has one Counts for prompts 0 and 1: make one for each",
    ),
    "one for all, made": (
        {"logits_processor_by_prompt": (lambda own: lambda prompt: own)(Counts()), "batch_size": 1},
        "has one Counts for prompts 0 and ",
    ),
    "a processor for each": (
        {"logits_processor_by_prompt": Counts()},
        "must be a list with an entry for each prompt",
    ),
    "no processors": ({"logits_processor_by_prompt": lambda prompt: 3}, "not 3"),
    "a number": ({"logits_processor_by_prompt": 3}, "not 3"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_with_processors_is_told(plain: Engine, kind: str) -> None:
    chosen, said = MISTAKES[kind]
    with pytest.raises(OptionError, match=said):
        plain.generate(PROMPTS, max_new_tokens=4, **chosen)


def test_the_same_stateless_processor_may_stand_for_every_prompt(plain: Engine) -> None:
    own = hf.NoRepeatNGramLogitsProcessor(1)
    settings: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0}
    wanted = tiny.tokens(plain, PROMPTS, logits_processor=own, **settings)
    given = [own] * len(PROMPTS)
    assert tiny.tokens(plain, PROMPTS, logits_processor_by_prompt=given, **settings) == wanted


def test_a_call_of_many_prompts_warns_of_what_rows_cost(plain: Engine) -> None:
    many = [[1 + n % 9] for n in range(shared_processors.MANY + 1)]
    with pytest.warns(UserWarning, match="called with 65 rows for each token of each row"):
        plain.generate(many, logits_processor=Looks(), max_new_tokens=1)


# Memory: a batch begins again in halves.


def short_of_memory(monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    """Steps of more than ``fits`` rows fail, the first of them after a step that succeeds."""

    def start(setup: GenerationSetup, request: Request) -> Generation:
        generation = Generation(setup, request)
        if len(request.rows) > fits:
            next(iter(generation))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generation

    monkeypatch.setattr(batching, "Generation", start)


@pytest.mark.filterwarnings("ignore:a batch of")
@pytest.mark.parametrize("kind", ["loop over rows", "a state for each row"])
def test_processors_begin_anew_where_memory_is_short(
    dynamic: Engine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = {**LOOKING, **STATEFUL}[kind]
    chosen: dict[str, Any] = {"seed": SEEDS, "temperature": 1.0, **LIMITED}
    wanted = tiny.tokens(dynamic, PROMPTS, logits_processor=make(), **chosen)
    by_prompt = {"logits_processor_by_prompt": lambda prompt: Counts()}
    each = tiny.tokens(dynamic, PROMPTS, **by_prompt, **chosen)
    short_of_memory(monkeypatch, 2)
    assert tiny.tokens(dynamic, PROMPTS, logits_processor=make(), **chosen) == wanted
    assert tiny.tokens(dynamic, PROMPTS, **by_prompt, **chosen) == each


def test_listed_processors_that_were_called_are_not_called_anew(
    plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 2)
    given = [Counts() for _ in PROMPTS]
    with pytest.raises(OptionError, match="cannot begin again: give batch_size=2, or a function"):
        plain.generate(PROMPTS, logits_processor_by_prompt=given, **LIMITED)


# Copies.


def test_copies_share_models_and_tokenizers_and_nothing_else(model: Any, tokenizer: Any) -> None:
    class Heavy(Counts):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.tokenizer, self.module = model, tokenizer, torch
            self.seen: dict[str, Any] = {"ids": [1], "run": lambda: (model, self.seen)}

    (original,) = given = [Heavy()]
    (copy,) = copied(given)
    assert copy is not original and copy.seen is not original.seen
    assert copy.model is model and copy.tokenizer is tokenizer and copy.module is torch
    assert copy.seen["run"]() == (model, copy.seen) and copy.seen["run"]()[1] is copy.seen


def test_a_network_that_is_a_processor_is_copied() -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.BatchNorm1d(4)

    (original,) = given = [Network()]
    (copy,) = copied(given)
    assert copy.inner is not original.inner


# The properties above can fail.


def share(originals: list[Any]) -> list[Any]:
    return originals


PLANTED: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "the row of a batch is taken for the prompt": (
        "loop over rows",
        lambda patch: patch.setattr(
            caller_processors.BatchRows,
            "part",
            lambda self, rows: caller_processors.BatchRows(range(len(rows)), self.total),
        ),
    ),
    "every prompt is taken for the first": (
        "prefix function",
        lambda patch: patch.setattr(
            caller_processors,
            "_constrained",
            lambda fn, _: hf.PrefixConstrainedLogitsProcessor(fn, 1),
        ),
    ),
    "copies share their state": (
        "a closure",
        lambda patch: patch.setattr(shared_processors, "copied", share),
    ),
    "rows that leave take no processor along": (
        "an attribute",
        lambda patch: patch.setattr(caller_processors.PerRow, "keep_rows", lambda self, rows: self),
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_of_this_kind_are_seen(
    plain: Engine, bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, plant = PLANTED[bug]
    make = {**LOOKING, **STATEFUL}[kind]
    due: dict[str, Any] = {"temperature": 1.0}

    def treatment(row: int) -> Any:
        return Only(make(), row) if kind in LOOKING else make()

    due["eos_token_id"] = ends(alone(plain, treatment, **due))
    wanted = alone(plain, treatment, **due)
    assert all(texts == wanted for texts in ways(plain, logits_processor=make(), **due).values())
    plant(monkeypatch)
    try:
        found = ways(plain, logits_processor=make(), **due)
    except SpecdecError:
        return
    assert any(texts != wanted for texts in found.values())
