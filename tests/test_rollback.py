"""Processors whose state is forked and rolled back: asked anywhere, they answer as on a walk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import EOS, PROMPTS, VOCAB
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

import specdec.hf
from specdec import Component, Engine, hookimpl
from specdec.decoding import acceptors
from specdec.decoding.randomness import Randomness
from specdec.decoding.step import Acceptance
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.errors import OptionError
from specdec.request.rollback import RolledBack

PAD = 0
ROWS = [[5, 9, 1, 22, 3, 22], [4], [6, 22, 1]]
WARM: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.0, "seed": 4, "eos_token_id": [EOS]}


def padded(rows: list[list[int]]) -> dict[str, Tensor]:
    """Inputs of transformers' generate."""
    missing = [max(map(len, rows)) - len(row) for row in rows]
    ids = [[PAD] * count + row for count, row in zip(missing, rows, strict=True)]
    masks = [[0] * count + [1] * len(row) for count, row in zip(missing, rows, strict=True)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(masks)}


class Machine(LogitsProcessor):
    """A machine that goes on with every token, as a grammar does; it must see each once."""

    def __init__(self) -> None:
        self.states: list[int] = []
        self.lengths: list[int] = []
        self.calls = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        assert len(input_ids) == 1, "written for one text"
        length = input_ids.shape[1]
        assert not self.lengths or length == self.lengths[-1] + 1, "a token was passed over"
        at = 3 * self.states[-1] + int(input_ids[0, -1]) + 1 if self.states else 0
        self.states.append(at)
        self.lengths.append(length)
        self.calls += 1
        tokens = torch.arange(scores.shape[1])
        return scores.masked_fill((tokens + at) % 4 == 0, float("-inf"))


class Rewinds(Machine):
    """One that can be rolled back and forked."""

    def rollback(self, calls: int) -> None:
        assert 0 < calls <= len(self.states)
        del self.states[-calls:], self.lengths[-calls:]

    def fork(self) -> Rewinds:
        other = Rewinds()
        other.states, other.lengths = [*self.states], [*self.lengths]
        return other


def walked(prefix: list[int], start: int) -> Tensor:
    """What a machine of its own says of a prefix, shown one token after the other."""
    own = Machine()
    for length in range(start, len(prefix) + 1):
        found = own(torch.tensor([prefix[:length]]), torch.zeros(1, VOCAB))
    return found


@given(
    prompt=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    asked=st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=12),
)
def test_prefixes_may_be_asked_for_in_any_order(prompt: list[int], asked: list[list[int]]) -> None:
    machine = Rewinds()
    rolled_back = RolledBack(machine)
    for path in [[], *asked]:
        prefix = [*prompt, *path]
        scores = rolled_back(torch.tensor([prefix]), torch.zeros(1, VOCAB))
        assert torch.equal(scores, walked(prefix, len(prompt)))
        assert machine.lengths == [*range(len(prompt), len(prefix) + 1)]
    rolled_back.settle(len(prefix))
    assert machine.lengths == [*range(len(prompt), len(prefix))]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", [Machine, Rewinds])
def test_a_machine_is_asked_once_a_node_of_the_walk_and_not_of_the_tree(
    plain: Engine, dynamic: Engine, kind: type[Machine], temperature: float
) -> None:
    settings = {**WARM, "temperature": temperature, "eos_token_id": []}
    for prompt in PROMPTS:
        own = kind()
        steps = tiny.steps(dynamic, prompt, logits_processor=own, **settings)
        found = [token for step in steps for token in step.new_tokens[0]]
        assert found == tiny.tokens(plain, prompt, logits_processor=Machine(), **settings)
        assert own.calls == len(found)
        nodes = sum(step.tree.size for step in steps)
        assert nodes > 2 * own.calls and max(len(step.new_tokens[0]) for step in steps) > 1


def test_a_stop_string_leaves_the_state_in_which_plain_decoding_leaves_it(
    plain: Engine, dynamic: Engine
) -> None:
    undone = 0
    for seed in range(6):
        settings = {"max_new_tokens": 20, "temperature": 1.0, "seed": seed, "eos_token_id": []}
        text = plain.generate("ABC", logits_processor=Machine(), **settings).text
        for stop in {text[3:4], text[6:7]}:
            machines = Machine(), Rewinds()
            for engine, machine in zip((plain, dynamic), machines, strict=True):
                engine.generate("ABC", logits_processor=machine, stop=stop, **settings)
            assert machines[0].states == machines[1].states
            undone += machines[1].calls - machines[0].calls
    assert undone > 0, "otherwise nothing was asked past a stop string"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_prompt_has_a_fork(dynamic: Engine, temperature: float) -> None:
    seeds = [3, 4, 5]
    settings = {**WARM, "temperature": temperature}
    wanted = [
        tiny.tokens(dynamic, prompt, logits_processor=Machine(), **{**settings, "seed": [seed]})
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    own = Rewinds()
    for size in (3, 2):
        found = tiny.tokens(
            dynamic,
            PROMPTS,
            logits_processor=LogitsProcessorList([own]),
            batch_size=size,
            **{**settings, "seed": seeds},
        )
        assert found == wanted
    assert own.calls == 0
    with pytest.raises(OptionError, match="Machine cannot serve 3 prompts"):
        tiny.tokens(dynamic, PROMPTS, logits_processor=Machine(), **settings)


@pytest.mark.parametrize(
    ("fork", "says"),
    [
        (None, r"Rewinds\.fork\(\) must return one logits processor, not NoneType"),
        ([], "must return one logits processor, not list"),
        ((Rewinds(), Rewinds()), "must return one logits processor, not tuple"),
        (7, r"Rewinds\.fork\(\) must be transformers processors, not 7"),
        (LogitsProcessorList([]), None),
    ],
    ids=["nothing", "an empty list", "two", "a number", "an empty processor list"],
)
def test_a_fork_is_one_processor(
    plain: Engine, monkeypatch: pytest.MonkeyPatch, fork: Any, says: str | None
) -> None:
    monkeypatch.setattr(Rewinds, "fork", lambda self: fork)
    with pytest.raises(OptionError, match=says or "not LogitsProcessorList"):
        tiny.tokens(plain, PROMPTS, logits_processor=Rewinds(), **WARM)


def test_every_text_of_a_prompt_has_a_fork(dynamic: Engine) -> None:
    seeds = [3, 4, 5, 6]
    wanted = [
        tiny.tokens(dynamic, PROMPTS[place // 2], logits_processor=Machine(), **own)
        for place, own in enumerate({**WARM, "seed": [seed]} for seed in seeds)
    ]
    settings = {**WARM, "seed": seeds, "n": 2}
    assert tiny.tokens(dynamic, PROMPTS[:2], logits_processor=Rewinds(), **settings) == wanted


def ends_with(length: int) -> Any:
    return lambda input_ids, scores: torch.full((len(input_ids),), input_ids.shape[1] >= length)


@pytest.mark.parametrize("eos", [None, EOS])
@pytest.mark.parametrize("padding", [0, 3])
def test_in_generate_a_criterion_leaves_the_state_in_which_plain_decoding_leaves_it(
    model: Any, draft: Path, eos: int | None, padding: int
) -> None:
    decoder = specdec.hf.decoder("draft_model", str(draft), acceptor="match")
    ids = torch.tensor([[PAD] * padding + [5, 9, 1, 22]])
    inputs = {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) >= padding)[None]}
    undone = 0
    for new in range(1, 12):
        machines, found = (Machine(), Rewinds()), []
        for custom, machine in zip((None, decoder), machines, strict=True):
            output = model.generate(
                **inputs,
                custom_generate=custom,
                logits_processor=[machine],
                stopping_criteria=[ends_with(ids.shape[1] + new)],
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=eos,
                pad_token_id=PAD,
            )
            found.append(output.tolist())
        assert found[0] == found[1]
        assert machines[0].states == machines[1].states
        assert machines[0].lengths == machines[1].lengths
        undone += machines[1].calls - machines[0].calls
    assert undone > 0, "otherwise nothing was asked past a criterion"


def test_in_generate_every_row_of_a_padded_batch_has_a_fork(model: Any, draft: Path) -> None:
    decoder = specdec.hf.decoder("draft_model", str(draft), acceptor="match")
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": PAD}
    wanted = [
        model.generate(torch.tensor([row]), logits_processor=[Machine()], **settings)[0, len(row) :]
        for row in ROWS
    ]
    found = model.generate(
        **padded(ROWS), custom_generate=decoder, logits_processor=[Rewinds()], **settings
    )
    for own, due in zip(found[:, max(map(len, ROWS)) :], wanted, strict=True):
        assert own[: len(due)].equal(due) and (own[len(due) :] == PAD).all()


class Backwards(acceptors.Match):
    """Looks at every node first, the last one first."""

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        for node in reversed(range(tree.size)):
            needed = tree.valid[:, node] & verification.active
            if needed.any():
                verification.distribution(torch.full_like(tree.tokens[:, 0], node), needed)
        return super().accept(tree, verification, randomness)


class Plugin:
    @hookimpl
    def specdec_acceptors(self) -> list[Component]:
        return [Component("backwards", lambda options: Backwards())]


def test_an_acceptor_may_ask_at_any_node(model: Any, plain: Engine) -> None:
    engine = Engine(model, strategy="lookup", acceptor="backwards", plugins=[Plugin()])
    for prompt in PROMPTS:
        wanted = tiny.tokens(plain, prompt, logits_processor=Machine(), **WARM)
        assert tiny.tokens(engine, prompt, logits_processor=Rewinds(), **WARM) == wanted
