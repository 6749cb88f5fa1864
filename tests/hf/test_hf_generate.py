"""Specdec in transformers' generate: every argument means there what it means without it."""

from __future__ import annotations

import inspect
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hf_batches import PAD, PROMPTS, both, live, padded
from hypothesis import given
from hypothesis import strategies as st
from written_tokens import Written

import specdec.hf
from examples import examples
from specdec import Engine
from specdec.errors import OptionError, SpecdecError, UnknownNameError
from specdec.hf.prepared import Prepared

EOS = [7, 45]
FIELDS: dict[str, Any] = {
    "repetition_penalty": 1.4,
    "no_repeat_ngram_size": 2,
    "encoder_repetition_penalty": 1.5,
    "encoder_no_repeat_ngram_size": 2,
    "min_new_tokens": 5,
    "min_length": 9,
    "bad_words_ids": [[26], [1, 45]],
    "sequence_bias": [[[1], -3.0], [[5, 9], 4.0]],
    "suppress_tokens": [21, 29],
    "begin_suppress_tokens": [45, 1],
    "forced_eos_token_id": 45,
    "exponential_decay_length_penalty": (3, 1.3),
    "remove_invalid_values": True,
}
WARPS: dict[str, Any] = {
    "temperature": 0.7,
    "top_k": 9,
    "top_p": 0.9,
    "min_p": 0.05,
    "top_h": 0.8,
    "typical_p": 0.9,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.01,
    "renormalize_logits": True,
}
HEADED = {"eagle2": tiny.EAGLE2, "auto": tiny.AUTO}
ROWS = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(
    lambda rows: [PROMPTS[r] for r in rows]
)


@pytest.fixture(scope="module", params=["lookup", "draft_model", "eagle2", "auto"])
def decoder(request: pytest.FixtureRequest, draft: Path, head: Path) -> Any:
    if request.param == "lookup":
        return specdec.hf.decoder("lookup", options={"drafter": {"size_by_cost": False}})
    if request.param == "draft_model":
        return specdec.hf.decoder("draft_model", str(draft), acceptor="match")
    return specdec.hf.decoder(request.param, str(head), options=HEADED[request.param])


@examples(25, 300)
@given(
    prompts=ROWS,
    names=st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=3),
    eos=st.sampled_from([None, 45, EOS]),
)
def test_tokens_scores_and_logits_are_transformers_own(
    model: Any, decoder: Any, prompts: Any, names: list[str], eos: Any
) -> None:
    if "exponential_decay_length_penalty" in names:
        eos = eos or 45  # transformers itself fails without one
    settings: dict[str, Any] = {name: FIELDS[name] for name in names}
    settings |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    theirs, ours = both(model, prompts, decoder, eos_token_id=eos, **settings)
    assert ours.sequences.equal(theirs.sequences)
    assert len(ours.scores) == len(theirs.scores) == len(ours.logits)
    ends = [eos] if isinstance(eos, int) else eos or []
    rows = live(theirs, max(map(len, prompts)), ends)
    for name in ("scores", "logits"):
        for mine, due, alive in zip(ours[name], theirs[name], rows, strict=True):
            assert mine.dtype == due.dtype and mine.shape == due.shape
            assert torch.allclose(*(x[alive].clamp(min=-1e9) for x in (mine, due)), atol=1e-4)
            assert not mine[[not row for row in alive]].any(), "0 for rows that have ended"


@examples(15, 200)
@given(
    prompts=ROWS,
    names=st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=2),
    warps=st.lists(st.sampled_from(sorted(WARPS)), unique=True, max_size=4),
    n=st.integers(1, 2),
    last=st.sampled_from([None, "warp", "watermark"]),
)
def test_sampled_tokens_are_drawn_from_the_scores_that_transformers_would_make(
    model: Any, decoder: Any, prompts: Any, names: Any, warps: Any, n: int, last: Any
) -> None:
    settings: dict[str, Any] = {name: FIELDS[name] for name in names}
    settings |= {name: WARPS[name] for name in warps}
    if last == "warp":  # the caller's own, of a kind that generate may have at the end
        settings["logits_processor"] = hf.LogitsProcessorList([hf.TopKLogitsWarper(20)])
    if last == "watermark":
        settings["watermarking_config"] = hf.WatermarkingConfig(bias=1.0)
    kept: list[Any] = []

    def keeping(model: Any, input_ids: Any, logits_processor: Any, **rest: Any) -> Any:
        kept.append(logits_processor)
        return decoder(model, input_ids, logits_processor, **rest)

    output = model.generate(
        **padded(prompts),
        custom_generate=keeping,
        do_sample=True,
        num_return_sequences=n,
        max_new_tokens=6,
        eos_token_id=EOS,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **settings,
    )
    start = max(map(len, prompts))
    for place, alive in enumerate(live(output, start, EOS)):
        text, logits = output.sequences[:, : start + place], output.logits[place]
        due = kept[0](text, logits.clone())[alive]
        assert torch.allclose(output.scores[place][alive], due, atol=1e-4)
        drawn = output.sequences[alive, start + place]
        assert (due.gather(1, drawn[:, None]) > float("-inf")).all()


def test_processors_on_another_device_than_the_model_give_the_same_text(
    model: Any, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AfterItself(hf.LogitsProcessor):
        """Gives the last token's successor a better score."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            after = (input_ids[:, -1:] + 1) % scores.shape[1]
            return scores.scatter_add(1, after, torch.full_like(scores[:, :1], 2.0))

    settings: dict[str, Any] = {"logits_processor": lambda: hf.LogitsProcessorList([AfterItself()])}
    settings |= {"eos_token_id": EOS, "return_dict_in_generate": True, "output_scores": True}
    settings |= FIELDS
    theirs, _ = both(model, PROMPTS, decoder, **settings)
    request = Prepared.request
    called: list[str] = []

    def far(prepared: Prepared, *given: Any, **more: Any) -> Any:
        """The request as if the model were elsewhere."""
        found = request(prepared, *given, **more | {"device": torch.device("meta")})
        called.append(str(found.place.device))
        return found

    monkeypatch.setattr(Prepared, "request", far)
    _, ours = both(model, PROMPTS, decoder, **settings)
    assert called == ["cpu"]
    assert ours.sequences.equal(theirs.sequences)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_inputs_and_outputs_may_be_on_the_cpu_while_the_model_is_on_a_gpu(decoder: Any) -> None:
    far = tiny.make_model().cuda()
    settings = {"eos_token_id": EOS, "return_dict_in_generate": True, "output_scores": True}
    theirs, ours = both(far, PROMPTS, decoder, **settings, **FIELDS)
    assert ours.sequences.equal(theirs.sequences)
    assert ours.sequences.device == theirs.sequences.device
    assert [x.device for x in ours.scores] == [x.device for x in theirs.scores]


def test_sampled_tokens_are_those_of_the_engine_with_the_same_seed(
    model: Any, plain: Engine, decoder: Any
) -> None:
    settings: dict[str, Any] = {"temperature": 0.8, "top_k": 20, "max_new_tokens": 10}
    settings |= {"repetition_penalty": 1.2, "eos_token_id": EOS}
    due: Any = plain.generate(PROMPTS, n=2, seed=5, **settings)
    given_to = {"do_sample": True, "num_return_sequences": 2, "pad_token_id": PAD}
    found = model.generate(
        **padded(PROMPTS), custom_generate=decoder, seed=5, **given_to, **settings
    )
    for row, result in zip(found[:, 10:].tolist(), due, strict=True):
        assert row[: len(result.token_ids)] == result.token_ids
        assert not any(row[len(result.token_ids) :])


def test_the_seed_is_torchs_own_unless_one_is_given(model: Any) -> None:
    def sample(seed: Any = None) -> Any:
        custom = specdec.hf.decoder("lookup")
        given_to = {} if seed is None else {"seed": seed}
        ids = torch.tensor(PROMPTS[:1])
        return model.generate(ids, custom_generate=custom, do_sample=True, **given_to).tolist()

    texts = []
    for number in (3, 3, 4):
        torch.manual_seed(number)
        texts += [sample(), sample()]
    assert texts[:2] == texts[2:4] != texts[4:] and texts[0] != texts[1]
    assert sample(7) == sample(7) != sample(8)
    assert sample([7]) == sample([7]) != sample(7)
    bound = specdec.hf.decoder("lookup", seed=7)
    ids = torch.tensor(PROMPTS[:1])
    assert model.generate(ids, custom_generate=bound, do_sample=True).tolist() == sample(7)


class Ending(hf.StoppingCriteria):
    """Ends rows in ways that look at tokens, at the row, at the others, at the calls, at scores."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.number, self.calls, self.seen = kind, number, 0, []

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self.calls += 1
        self.seen.append((input_ids.tolist(), None if scores is None else len(scores)))
        rows = torch.arange(len(input_ids))
        if self.kind == "tokens":
            return (input_ids.sum(1) * 7 + input_ids.shape[1]) % 11 == self.number
        if self.kind == "row":
            return input_ids.shape[1] >= 12 + rows * self.number % 5
        if self.kind == "others":
            return ((input_ids[:, -1] % 11 == self.number).any()).expand(len(rows))
        if self.kind == "scores":
            return scores[-1].amax(1) > self.number
        return torch.full((len(rows),), self.calls > self.number)


@examples(15, 200)
@given(
    prompts=ROWS,
    kind=st.sampled_from(["tokens", "row", "others", "calls", "scores"]),
    number=st.integers(0, 10),
    eos=st.sampled_from([None, 45]),
)
def test_criteria_see_and_end_what_they_do_in_transformers(
    model: Any, decoder: Any, prompts: Any, kind: str, number: int, eos: Any
) -> None:
    made: list[Ending] = []

    def criteria() -> Any:
        made.append(Ending(kind, number))
        return hf.StoppingCriteriaList([made[-1]])

    settings: dict[str, Any] = {"stopping_criteria": criteria, "eos_token_id": eos}
    settings |= {"return_dict_in_generate": True, "output_scores": kind == "scores"}
    theirs, ours = both(model, prompts, decoder, **settings)
    assert ours.sequences.equal(theirs.sequences)
    assert made[1].seen == made[0].seen
    assert (ours.scores is None) == (kind != "scores")
    if kind == "scores":
        assert len(ours.scores) == len(theirs.scores)


def test_scores_of_a_row_that_a_criterion_has_ended_are_zero(model: Any, decoder: Any) -> None:
    def ends(ids: Any, scores: Any) -> Any:
        return torch.arange(len(ids)) < (ids.shape[1] >= 12)  # the first row, after two tokens

    settings: dict[str, Any] = {"return_dict_in_generate": True, "output_scores": True}
    found = model.generate(
        **padded([PROMPTS[0], PROMPTS[2]]),
        custom_generate=decoder,
        stopping_criteria=[ends],
        eos_token_id=58,
        pad_token_id=PAD,
        do_sample=False,
        max_new_tokens=12,
        **settings,
    )
    assert found.sequences[0, 12:].tolist() == [PAD] * 10
    kept = [bool(column[0].any()) for column in found.scores]
    assert kept == [True] * 2 + [False] * 10 and all(column[1].any() for column in found.scores)


def test_time_ends_a_text(model: Any, decoder: Any) -> None:
    found = model.generate(
        **padded(PROMPTS), custom_generate=decoder, max_time=1e-9, max_new_tokens=9
    )
    assert found.shape[1] == 11


@pytest.mark.parametrize("eos", [None, 45])
@pytest.mark.parametrize("rows", [1, 4])
def test_streamers_get_what_transformers_gives_them(
    model: Any, decoder: Any, rows: int, eos: Any
) -> None:
    made: list[Written] = []

    def streamer() -> Any:
        made.append(Written())
        return made[-1]

    both(model, PROMPTS[:rows], decoder, streamer=streamer, eos_token_id=eos)
    assert made[1].got == made[0].got and made[1].got[-1] == "end"
    bound = Written()
    own = specdec.hf.decoder("lookup", streamer=bound)
    model.generate(
        **padded(PROMPTS[:rows]),
        custom_generate=own,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=PAD,
    )
    assert bound.got == made[0].got


def test_a_text_iterator_streamer_reads_in_another_thread(model: Any, tokenizer: Any) -> None:
    streamer = hf.TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    call = {**padded(PROMPTS[:1]), "max_new_tokens": 12, "do_sample": False}
    run = {**call, "streamer": streamer, "custom_generate": specdec.hf.decoder("lookup")}
    thread = Thread(target=model.generate, kwargs=run)
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == tokenizer.decode(model.generate(**call)[0, 10:])


def test_a_reader_does_not_wait_for_a_call_that_was_refused(model: Any) -> None:
    streamer = Written()
    with pytest.raises(OptionError, match="penalty_alpha"):
        model.generate(
            **padded(PROMPTS[:1]),
            custom_generate=specdec.hf.decoder("lookup"),
            penalty_alpha=0.5,
            streamer=streamer,
        )
    assert streamer.got[-1] == "end"


def test_two_streamers_are_refused_and_neither_is_left_waiting(model: Any) -> None:
    own, other = Written(), Written()
    decoder = specdec.hf.decoder("lookup", streamer=own)
    call: dict[str, Any] = {**padded(PROMPTS[:1]), "custom_generate": decoder, "max_new_tokens": 3}
    with pytest.raises(OptionError, match="streamer is given to decoder and to generate"):
        model.generate(**call, streamer=other)
    assert own.got == ["end"] and other.got[-1] == "end"
    model.generate(**call, streamer=own)
    assert own.got.count("end") == 2


def test_a_seed_is_given_to_the_decoder_or_to_generate(model: Any) -> None:
    decoder = specdec.hf.decoder("lookup", seed=7)
    with pytest.raises(OptionError, match="seed is given to decoder and to generate"):
        model.generate(**padded(PROMPTS[:1]), custom_generate=decoder, seed=8, do_sample=True)


def test_a_function_of_the_prefix_gets_the_index_of_the_prompt(model: Any, decoder: Any) -> None:
    found = model.generate(
        **padded(PROMPTS),
        custom_generate=decoder,
        prefix_allowed_tokens_fn=lambda prompt, ids: [20 + prompt],
        do_sample=True,
        num_return_sequences=2,
        max_new_tokens=3,
    )
    assert found[:, 10:].tolist() == [[20 + row // 2] * 3 for row in range(8)]


class Counting(hf.LogitsProcessor):
    """Prefers other tokens at every call, and others in every row."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.calls += 1
        rows = torch.arange(len(scores))[:, None] + input_ids.shape[1]
        return scores + 3 * torch.cos(self.calls * torch.arange(scores.shape[1]) + rows)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_processors_with_a_state_and_a_row_see_what_they_see_in_transformers(
    model: Any, decoder: Any, rows: int
) -> None:
    processors = lambda: hf.LogitsProcessorList([Counting()])  # noqa: E731
    theirs, ours = both(
        model, PROMPTS[:rows], decoder, logits_processor=processors, eos_token_id=None
    )
    assert ours.equal(theirs)


def test_classifier_free_guidance_serves_one_prompt(model: Any, decoder: Any) -> None:
    settings: dict[str, Any] = {"guidance_scale": 1.5, "eos_token_id": None}
    theirs, ours = both(model, PROMPTS[:1], decoder, **settings)
    assert ours.equal(theirs)
    with pytest.raises(OptionError, match="UnbatchedClassifierFreeGuidance"):
        both(model, PROMPTS, decoder, **settings)


def test_stop_strings_end_where_transformers_ends(model: Any, tokenizer: Any) -> None:
    whole, _ = both(model, PROMPTS[:1], eos_token_id=None)
    string = tokenizer.decode(whole[0, 14:16])
    own = specdec.hf.decoder("lookup", tokenizer=tokenizer, stop_strings=string)
    call = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    ours = model.generate(**padded(PROMPTS[:1]), custom_generate=own, **call)
    theirs = model.generate(**padded(PROMPTS[:1]), tokenizer=tokenizer, stop_strings=string, **call)
    assert ours.equal(theirs) and ours.shape[1] < 22
    criteria = lambda: [hf.StopStringCriteria(tokenizer, string)]  # noqa: E731
    _, ours = both(model, PROMPTS[:1], stopping_criteria=criteria, eos_token_id=None)
    assert ours.equal(theirs)
    with pytest.raises(OptionError, match="stop_strings need a tokenizer"):
        specdec.hf.decoder(stop_strings=["x"])


@pytest.mark.parametrize("value", [5, "", ["A", 3], [""], b"A", {"A": 1}, "\ud800", "\U0010ffff"])
def test_stop_strings_that_are_none_are_refused_when_the_decoder_is_made(
    tokenizer: Any, value: Any
) -> None:
    with pytest.raises(OptionError, match="stop_strings"):
        specdec.hf.decoder("plain", tokenizer=tokenizer, stop_strings=value)


@pytest.mark.parametrize("value", [5, "gpt2", object()])
def test_what_is_no_tokenizer_is_refused_when_the_decoder_is_made(value: Any) -> None:
    with pytest.raises(OptionError, match="tokenizer must be a transformers tokenizer"):
        specdec.hf.decoder("plain", tokenizer=value, stop_strings="A")


def test_a_name_that_a_decoder_does_not_have_is_told_with_all_that_it_has() -> None:
    arguments = inspect.signature(specdec.hf.decoder).parameters
    own = {name for name, each in arguments.items() if each.kind is not each.VAR_KEYWORD}
    with pytest.raises(UnknownNameError, match="did you mean 'seed'") as error:
        specdec.hf.decoder(sed=1)
    assert set(error.value.known) == own | set(inspect.signature(Engine).parameters) - {"model"}


def test_a_pipeline_takes_it(model: Any, tokenizer: Any) -> None:
    generator = hf.pipeline("text-generation", model=model, tokenizer=tokenizer)
    asked: dict[str, Any] = {"max_new_tokens": 9, "do_sample": False, "batch_size": 2}
    texts = ["HELLO", "ABCABCAB", "Q"]
    decoder = specdec.hf.decoder("lookup", tokenizer=tokenizer)
    assert generator(texts, custom_generate=decoder, **asked) == generator(texts, **asked)
    chat = [{"role": "user", "content": "HELLO"}]
    assert generator(chat, custom_generate=decoder, **asked) == generator(chat, **asked)


@pytest.mark.parametrize("costs", [True, False])
def test_the_default_strategy_takes_a_head(model: Any, head: Path, costs: bool) -> None:
    decoder = specdec.hf.decoder(drafter=str(head), options={"policy": {"size_by_cost": costs}})
    theirs, ours = both(model, PROMPTS, decoder, eos_token_id=None, max_new_tokens=24)
    assert ours.equal(theirs)
    accepted = sum(stats.accepted_tokens for stats in decoder.stats)
    assert costs or accepted > 0, "where costs count, the clock may say that none is worth it"


def test_drafts_are_accepted_in_what_is_compared(model: Any, decoder: Any) -> None:
    theirs, ours = both(model, PROMPTS, decoder, eos_token_id=None)
    assert ours.equal(theirs)
    assert sum(stats.accepted_tokens for stats in decoder.stats) > 0


def test_measurements_are_of_the_last_call(model: Any, draft: Path) -> None:
    decoder = specdec.hf.decoder("draft_model", str(draft), acceptor="match")
    assert decoder.stats is None
    both(model, PROMPTS, decoder, eos_token_id=None)
    assert len(decoder.stats) == 4 and all(stats.new_tokens == 12 for stats in decoder.stats)
    assert sum(stats.tau for stats in decoder.stats) > 5


def test_measurements_are_of_the_text_that_is_returned(model: Any, decoder: Any) -> None:
    for number in range(4):
        found = model.generate(
            **padded(PROMPTS),
            custom_generate=decoder,
            stopping_criteria=hf.StoppingCriteriaList([Ending("row", number)]),
            eos_token_id=58,
            pad_token_id=PAD,
            do_sample=False,
            max_new_tokens=12,
        )
        new = (found[:, 10:] != PAD).sum(dim=1).tolist()
        assert [stats.new_tokens for stats in decoder.stats] == new


def test_the_model_is_left_as_it_was(model: Any) -> None:
    own = tiny.make_model()
    own.train()
    own.config._attn_implementation = "eager"
    ids = torch.tensor(PROMPTS[:1])
    own.generate(ids, custom_generate=specdec.hf.decoder("lookup"), max_new_tokens=3)
    assert own.training and own.config._attn_implementation == "eager"


def test_what_does_not_exist_is_told_when_the_decoder_is_made() -> None:
    with pytest.raises(SpecdecError, match=r"unknown argument of decoder 'drafters'.*'drafter'"):
        specdec.hf.decoder(drafters="x")
    with pytest.raises(OptionError, match="streamer must be"):
        specdec.hf.decoder(streamer=print)


def test_what_auto_learned_is_in_its_file_where_a_criterion_ends_the_texts(
    model: Any, head: Path, tmp_path: Path
) -> None:
    file, policy = tmp_path / "memory.json", tiny.AUTO["policy"]
    options = {"policy": {**policy, "calibration_file": str(file)}}
    decoder = specdec.hf.decoder("auto", str(head), options=options)

    def early(ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((len(ids),), ids.shape[1] >= 14)

    found = model.generate(
        **padded(PROMPTS), custom_generate=decoder, max_new_tokens=30, stopping_criteria=[early]
    )
    assert found.shape[1] == 14 and file.exists()
