"""What the assistant wrote is what a document learns from, by whatever template."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from specdec import SpecdecError
from specdec.training.dialogues import encode_dialogue
from specdec.training.documents import make_documents
from specdec.training.prompts import prompts_of
from specdec.training.rows import Row

_TURNS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<bot>{{ m.content }}<eos>Z"
    "{% else %}<user>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
_MARKED = _TURNS.replace(
    "{{ m.content }}<eos>", "{% generation %}{{ m.content }}<eos>{% endgeneration %}", 1
)
# Drops what the assistant said before the last message, as templates of reasoning models do.
_FORGETS = _TURNS.replace(
    "<bot>{{ m.content }}", "<bot>{{ m.content if loop.last else m.content[:1] }}", 1
)
texts = st.text("ABCDEFG", min_size=1, max_size=6)
dialogues = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


def with_template(template: str) -> Any:
    tokenizer = copy.deepcopy(tiny.make_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def messages(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


@given(dialogues)
def test_the_mask_is_the_text_of_the_assistant_and_its_end(turns: list[tuple[str, str]]) -> None:
    tokenizer = with_template(_TURNS)
    ids, mask = encode_dialogue(messages(turns), tokenizer)
    assert ids == tokenizer.apply_chat_template(messages(turns))["input_ids"]
    learned = [token for token, counted in zip(ids, mask, strict=True) if counted]
    answers = "".join(f"{answer}<eos>" for _, answer in turns)
    assert learned == tokenizer(answers, add_special_tokens=False)["input_ids"]


@given(dialogues)
def test_a_template_with_generation_marks_gives_the_same_mask(
    turns: list[tuple[str, str]],
) -> None:
    own = encode_dialogue(messages(turns), with_template(_TURNS))
    assert encode_dialogue(messages(turns), with_template(_MARKED)) == own


@given(dialogues)
def test_a_message_that_is_rendered_otherwise_later_is_not_counted(
    turns: list[tuple[str, str]],
) -> None:
    tokenizer = with_template(_FORGETS)
    ids, mask = encode_dialogue(messages(turns), tokenizer)
    counted = [token for token, own in zip(ids, mask, strict=True) if own]
    whole = [a for i, (_, a) in enumerate(turns) if i == len(turns) - 1 or len(a) == 1]
    expected = tokenizer("".join(f"{a}<eos>" for a in whole), add_special_tokens=False)
    assert counted == expected["input_ids"]


@given(dialogues)
def test_a_generation_prompt_that_opens_a_thought_hides_no_message(
    turns: list[tuple[str, str]],
) -> None:
    own = encode_dialogue(messages(turns), with_template(_TURNS))
    opening = _TURNS.replace("%}<bot>{% endif", "%}<bot>ZZ{% endif")
    assert opening != _TURNS
    assert encode_dialogue(messages(turns), with_template(opening)) == own


def test_a_message_ends_with_any_token_that_ends_a_text() -> None:
    tokenizer = with_template(_TURNS.replace("<eos>", "Y"))
    _, mask = encode_dialogue(messages([("A", "B")]), tokenizer)
    (end,) = tokenizer("Y", add_special_tokens=False)["input_ids"]
    _, ended = encode_dialogue(messages([("A", "B")]), tokenizer, [end])
    assert sum(mask) == 3 and sum(ended) == 2


@given(st.lists(st.text("ABCDEFG", min_size=3, max_size=40), min_size=1, max_size=5), st.data())
def test_a_plain_text_is_learned_whole_in_pieces(given_: list[str], data: st.DataObject) -> None:
    length = data.draw(st.integers(8, 20))
    rows = [Row(text=text) for text in given_]
    found = make_documents(rows, tiny.make_tokenizer(), length=length, vocab_size=60)
    assert max(found.lengths) <= length and bool(found.answer.all())
    assert found.starts[-1] == sum(found.lengths) == len(found.tokens)


def test_documents_are_counted_by_source_and_none_comes_twice() -> None:
    rows = [
        Row(prompt_ids=(5, 6), answer_ids=(7, 8), source="a", licence="MIT"),
        Row(prompt_ids=(5, 6), answer_ids=(7, 8), source="b"),
        Row(prompt_ids=(5, 6), answer_ids=(9, 8), source="a", licence="MIT"),
        Row(prompt_ids=tuple(range(5, 30)), answer_ids=(7, 8)),
    ]
    found = make_documents(rows, None, length=12, vocab_size=60)
    assert found.sources == {("a", "MIT"): 2}
    assert sum(found.left_out.values()) == 2
    assert found.document(1) == ([5, 6, 9, 8], [False, False, True, True])
    assert found.prompts([1]) == [[5, 6]] and found.frequent(1) == [8]


def test_what_ends_a_text_is_frequent_however_rare() -> None:
    rows = [Row(prompt_ids=(5,), answer_ids=(8, 8, 9, token)) for token in (10, 11, 7)]
    found = make_documents(rows, None, length=12, vocab_size=60)
    assert found.frequent(3) == [7, 8, 9] and found.frequent(2, [3]) == [3, 8]
    assert found.only([0, 1]).frequent(9) == [8, 9, 10, 11]


def test_rows_that_cannot_be_encoded_are_left_out_and_counted() -> None:
    said = Row(messages=({"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}))
    refusing = with_template("{{ raise_exception('no system') }}")
    rows = [said, Row(prompt_ids=(5, 6), answer_ids=(7, 8)), Row(prompt_ids=(5, 6)), said]
    found = make_documents(rows, refusing, length=16, vocab_size=60)
    assert found.left_out == {"refused": 2, "no answer within the length": 1}
    assert [prompt.ids for prompt in prompts_of(rows, refusing)] == [(5, 6)]
    placed = replace(said, place="line 3 of chats.jsonl")
    with pytest.raises(SpecdecError, match=r"line 3 of chats\.jsonl: .*no system"):
        make_documents([placed, said], refusing, length=16, vocab_size=60)
    with pytest.raises(SpecdecError, match=r"line 3 of chats\.jsonl: "):
        list(prompts_of([placed], refusing))


def test_what_cannot_be_encoded_is_refused() -> None:
    said = Row(messages=({"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}))
    refusing = with_template("{{ raise_exception('no system') }}")
    bare = with_template("")
    bare.chat_template = None
    for row, tokenizer, says in (
        (said, refusing, "refused a dialogue of user, assistant: no system"),
        (said, bare, "no chat template: give rows of plain text"),
        (said, None, "no tokenizer"),
        (Row(prompt_ids=(1,), answer_ids=(2, 99)), None, "99: the target model has 60"),
        (Row(text=""), tiny.make_tokenizer(), "nothing to learn from"),
    ):
        with pytest.raises(SpecdecError, match=says):
            make_documents([row], tokenizer, length=16, vocab_size=60)
