"""Streams of batches and transformers' streamers: the same text in pieces, as it was written."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from tiny import EOS, PROMPTS
from written_tokens import Written

from examples import examples
from specdec import Engine
from specdec.errors import OptionError, PromptError, SpecdecError


@examples(8, 100)
@given(
    rows=st.lists(st.integers(0, 2), min_size=1, max_size=9),
    stop=st.sampled_from([[], ["q"], ["Wa", "<eos>"]]),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 99),
)
def test_the_pieces_of_every_text_add_up_to_it(
    dynamic: Engine, rows: list[int], stop: list[str], temperature: float, seed: int
) -> None:
    prompts = [PROMPTS[row] for row in rows]
    settings: dict[str, Any] = {"max_new_tokens": 18, "temperature": temperature, "seed": seed}
    settings |= {"stop": stop, "eos_token_id": [1, EOS]}
    stream: Any = dynamic.stream(prompts, **settings)
    texts = [""] * len(rows)
    for index, piece in stream:
        assert piece
        texts[index] += piece
    wanted: Any = dynamic.generate(prompts, **settings)
    assert texts == [result.text for result in wanted] == [r.text for r in stream.results]
    assert [r.token_ids for r in stream.results] == [r.token_ids for r in wanted]


def test_a_text_that_has_ended_is_given_whole_before_the_others_go_on(plain: Engine) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 30, "temperature": 0, "eos_token_id": 45}
    results: Any = plain.generate(PROMPTS, **settings)
    lengths = [len(result.token_ids) for result in results]
    assert len(set(lengths)) > 1
    # Every text ends in what may be the beginning of a stop string, and is held back until then.
    settings["stop"] = [result.text[-1] + "~~" for result in results]
    pieces = list(plain.stream(PROMPTS, **settings))
    for row, result in enumerate(results):
        assert "".join(str(piece) for index, piece in pieces if index == row) == result.text
    last = {index: place for place, (index, _) in enumerate(pieces)}
    order = sorted(last, key=lambda row: last[row])
    assert [lengths[row] for row in order] == sorted(lengths)


def test_several_texts_of_a_prompt_are_streamed_by_index(plain: Engine) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.0, "seed": 1, "n": 3}
    stream: Any = plain.stream(PROMPTS[0], **settings)
    assert {index for index, _ in stream} == {0, 1, 2}
    assert [r.token_ids for r in stream.results] == tiny.tokens(plain, PROMPTS[0], **settings)


def test_a_stream_that_is_left_keeps_what_was_committed(dynamic: Engine) -> None:
    stream: Any = dynamic.stream(PROMPTS, max_new_tokens=30, temperature=0, eos_token_id=[])
    next(stream)
    stream.close()
    assert list(stream) == []
    assert all(0 < len(result.token_ids) < 30 for result in stream.results)
    assert all(result.finish_reason is None for result in stream.results)


@pytest.mark.parametrize("eos", [[], 45])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_streamer_gets_what_transformers_generate_gives_it(
    model: Any, dynamic: Engine, rows: int, eos: Any
) -> None:
    longest = max(map(len, PROMPTS[:rows]))
    pad = 0
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in PROMPTS[:rows]])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in PROMPTS[:rows]])
    settings: dict[str, Any] = {"max_new_tokens": 14, "pad_token_id": pad}
    theirs, ours = Written(), Written()
    given = {"attention_mask": mask, "do_sample": False, "eos_token_id": eos or None}
    model.generate(ids, streamer=theirs, **given, **settings)
    dynamic.generate(
        PROMPTS[:rows],
        streamer=ours,
        temperature=0,
        eos_token_id=eos,
        generation_config={"pad_token_id": pad},
        max_new_tokens=14,
    )
    assert ours.got == theirs.got and ours.got[-1] == "end"


def test_a_text_iterator_streamer_reads_in_another_thread(dynamic: Engine, tokenizer: Any) -> None:
    streamer = hf.TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0}
    run = {"prompt": PROMPTS[0], "streamer": streamer, **settings}
    thread = Thread(target=dynamic.generate, kwargs=run)
    thread.start()
    text = "".join(streamer)
    thread.join()
    result: Any = dynamic.generate(PROMPTS[0], **settings)
    assert text == tokenizer.decode(result.token_ids)


def test_a_streamer_is_told_of_the_end_after_an_error_too(plain: Engine) -> None:
    def breaks(ids: Any, scores: Any) -> Any:
        if ids.shape[1] > 12:
            raise ZeroDivisionError
        return scores

    streamer = Written()
    with pytest.raises(ZeroDivisionError):
        plain.generate(PROMPTS[0], logits_processor=breaks, streamer=streamer)
    assert len(streamer.got) > 2 and streamer.got[-1] == "end"


def test_a_streamer_of_a_turn_gets_what_that_of_a_call_gets(dynamic: Engine) -> None:
    session, prompts = dynamic.session(), [list(prompt) for prompt in PROMPTS]
    settings: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0}
    for _ in range(2):
        ours, theirs = Written(), Written()
        results: Any = session.generate(prompts, streamer=ours, **settings)
        dynamic.generate(prompts, streamer=theirs, **settings)
        assert ours.got == theirs.got and ours.got[-1] == "end"
        prompts = [row + each.token_ids for row, each in zip(prompts, results, strict=True)]


@pytest.mark.parametrize("fault", ["a refusal", "no streamer", "an error of its own"])
def test_a_streamer_of_a_turn_is_told_of_the_end_whatever_comes(plain: Engine, fault: str) -> None:
    class Breaks(Written):
        def put(self, value: Any) -> None:
            super().put(value)
            if len(self.got) == 3:
                raise ZeroDivisionError

    session, settings = plain.session(), {"max_new_tokens": 6, "temperature": 0}
    streamer = Breaks() if fault == "an error of its own" else Written()
    with pytest.raises((SpecdecError, ZeroDivisionError)):
        if fault == "no streamer":
            session.start(PROMPTS[0], streamer=streamer)
        else:
            more = {"top_p": 7.0} if fault == "a refusal" else {}
            session.generate(PROMPTS[0], streamer=streamer, **settings, **more)
    assert streamer.got.count("end") == 1 and streamer.got[-1] == "end"
    again: Any = session.generate(PROMPTS[0], **settings)
    assert again.token_ids == tiny.tokens(plain, PROMPTS[0], **settings)


@pytest.mark.parametrize("refused", [{"top_p": 7}, {"batch_size": 0}, {"prompt": []}], ids=str)
def test_a_streamer_is_told_of_the_end_of_a_call_that_is_refused(
    plain: Engine, refused: dict[str, Any]
) -> None:
    streamer = Written()
    with pytest.raises(SpecdecError):
        plain.generate(**{"prompt": PROMPTS[0], "streamer": streamer, **refused})
    assert streamer.got == ["end"]


def test_what_cannot_be_streamed_is_refused(plain: Engine, model: Any) -> None:
    refused = Written()
    with pytest.raises(OptionError, match="streamer must be one of transformers"):
        plain.generate(PROMPTS[0], streamer=print)
    with pytest.raises(OptionError, match="a TextStreamer takes one text, and 3 are asked for"):
        plain.generate(PROMPTS, streamer=hf.TextStreamer(plain.tokenizer))
    with pytest.raises(OptionError, match=r"batch_size=2 .* leave out one"):
        plain.generate(PROMPTS, streamer=Written(), batch_size=2)
    with pytest.raises(OptionError, match=r"streamer is an argument of Engine\.generate and"):
        plain.stream(PROMPTS[0], streamer=refused)
    assert refused.got == ["end"]
    with pytest.raises(PromptError, match="needs a tokenizer"):
        Engine(model, strategy="plain").stream(PROMPTS)
