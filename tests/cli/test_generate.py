"""``specdec generate``: what it prints and what it claims."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from specdec import Engine
from specdec.cli import runs
from specdec.cli.identity import compare
from specdec.cli.runs import ContenderRuns, Streamed

Command = Callable[..., Any]

SCHEMA = {
    "text": str,
    "token_ids": list,
    "finish_reason": str,
    "interrupted": bool,
    "prompt_tokens": int,
    "strategy": str,
    "parts": dict,
    "lossless": bool,
    "new_tokens": int,
    "tau": float,
    "alpha": list,
    "tokens_per_second": float,
    "plain_tokens_per_second": float,
    "speedup": float,
    "identical": bool,
    "identical_reason": str,
    "model": str,
    "seed": int,
    "stats": dict,
    "settings": dict,
}


def test_json_is_one_object_with_the_documented_fields(generated: Command) -> None:
    found = generated()
    assert {name: type(found[name]) for name in SCHEMA} == SCHEMA
    assert "results" not in found


def test_json_agrees_with_itself(generated: Command) -> None:
    found = generated("--temperature", 0)
    assert found["new_tokens"] == len(found["token_ids"]) == found["stats"]["new_tokens"]
    assert found["tau"] == found["new_tokens"] / found["stats"]["target_forwards"]
    assert found["speedup"] == found["tokens_per_second"] / found["plain_tokens_per_second"]


def test_output_is_the_engines_own(generated: Command, plain: Engine) -> None:
    expected = plain.generate(
        [{"role": "user", "content": "HELLO"}], max_new_tokens=12, temperature=0
    )
    found = generated("--temperature", 0)
    assert (found["token_ids"], found["text"]) == (expected.token_ids, expected.text)


@pytest.mark.parametrize("temperature", [0, 1])
def test_the_default_is_identical_to_plain_decoding(generated: Command, temperature: int) -> None:
    found = generated("--temperature", temperature, "--seed", 5)
    assert found["identical"] is True
    assert found["lossless"] is True
    assert found["seed"] == 5


def test_rejection_at_temperature_1_claims_no_identity(generated: Command) -> None:
    found = generated("--temperature", 1, "--acceptor", "rejection", "--strategy", "eagle2")
    assert found["identical"] is None
    assert found["identical_reason"] == "rejection keeps the distribution, not the draw"
    assert found["lossless"] is True


def test_rejection_at_temperature_0_is_compared(generated: Command) -> None:
    assert (
        generated("--temperature", 0, "--acceptor", "rejection", "--strategy", "eagle2")[
            "identical"
        ]
        is True
    )


def test_lossy_acceptor_is_called_lossy(generate: Command, generated: Command) -> None:
    assert (
        "LOSSY"
        in generate("--temperature", 1, "--acceptor", "typical", "--strategy", "eagle2").stdout
    )
    compared = generate("--temperature", 1, "--acceptor", "typical", "--compare", "eagle2")
    assert "eagle2 LOSSY" in compared.stdout
    found = generated("--temperature", 1, "--acceptor", "typical", "--strategy", "eagle2")
    assert (found["lossless"], found["identical"]) == (False, None)


def test_drawn_seed_reproduces_the_text(generated: Command) -> None:
    first = generated("--temperature", 1)
    again = generated("--temperature", 1, "--seed", first["seed"])
    assert again["token_ids"] == first["token_ids"]


def test_text_precedes_the_table(generate: Command, generated: Command) -> None:
    text = generated("--temperature", 0)["text"]
    result = generate("--temperature", 0)
    assert result.exit_code == 0
    assert result.stdout.startswith(text + "\n")
    for name in ("tau", "alpha by depth", "tokens/s", "plain decoding", "speedup", "identical"):
        assert name in result.stdout.removeprefix(text)
    assert "seed" not in result.stdout.removeprefix(text)
    assert result.stderr == ""


def test_table_shows_the_seed_when_sampling(generate: Command) -> None:
    result = generate("--temperature", 1, "--seed", 4242)
    assert "4242" in result.stdout


def test_options_of_parts_are_set(generated: Command) -> None:
    given = {
        "depth": 1,
        "budget": 3,
        "size_by_cost": False,
    }  # with costs, the first steps draft nothing
    found = generated(*(f"-opolicy.{name}={str(value).lower()}" for name, value in given.items()))
    assert found["settings"]["options"]["auto"]["policy"] == given
    assert len(found["alpha"]) == 1


def test_parts_are_swapped(generated: Command) -> None:
    found = generated(
        "--policy", "chain", "--verifier", "path", "--acceptor", "rejection", "--strategy", "eagle2"
    )
    parts = {"drafter": "eagle", "policy": "chain", "verifier": "path", "acceptor": "rejection"}
    assert found["parts"] == parts


def test_set_reaches_the_generation_config(generated: Command, generate: Command) -> None:
    text = generated("--set", "no_repeat_ngram_size=1")["token_ids"]
    assert len(set(text)) == len(text)
    refused = generate("--set", "num_beams=4")
    assert refused.exit_code == 2
    assert "num_beams" in refused.stderr


def test_no_plain_leaves_the_comparison_null(generated: Command) -> None:
    found = generated("--no-plain")
    for name in ("plain_tokens_per_second", "speedup", "identical"):
        assert found[name] is None
    assert found["tokens_per_second"] > 0


def test_several_strategies_are_measured_as_often_as_asked_without_plain(
    generated: Command,
) -> None:
    found = generated("--compare", "chain,eagle2", "--no-plain", "--repeat", 2)
    assert [len(row["measured_tokens_per_second"]) for row in found["results"]] == [2, 2]


def test_plain_itself_is_its_own_baseline(generated: Command) -> None:
    found = generated("--strategy", "plain", drafter=False)
    assert (found["tau"], found["speedup"], found["identical"]) == (1.0, 1.0, True)


def test_compare_runs_every_strategy_and_plain_once(generated: Command, generate: Command) -> None:
    names = ["chain", "eagle2", "plain"]
    arguments = ("--compare", "chain,eagle2", "-o", "policy.depth=2", "--temperature", 0)
    found = generated(*arguments)
    assert [row["strategy"] for row in found["results"]] == names
    assert all(row["identical"] for row in found["results"])
    assert found["results"][2]["speedup"] == 1.0
    result = generate(*arguments)
    assert all(result.stdout.count(f" {name} ") >= 1 for name in names)
    assert result.stdout.count(found["text"]) == 1


def test_compare_hands_an_option_to_those_that_have_it(generated: Command) -> None:
    found = generated(
        "--compare", "chain,eagle2", "-o", "policy.budget=3", "-o", "chain.policy.depth=2"
    )
    options = found["settings"]["options"]
    assert options["eagle2"]["policy"] == {"budget": 3}
    assert options["chain"]["policy"] == {"depth": 2}


def test_dash_reads_the_prompt_from_stdin(generated: Command) -> None:
    assert (
        generated(prompt="-", input="HELLO\n")["token_ids"]
        == generated(prompt="HELLO")["token_ids"]
    )


def test_raw_leaves_out_the_chat_template(generated: Command) -> None:
    assert generated("--raw")["prompt_tokens"] == 5
    assert generated()["prompt_tokens"] == 7


def test_stop_strings_end_the_text_before_them(generated: Command) -> None:
    text = generated()["text"]
    found = generated("--stop", text[4:6])
    assert found["finish_reason"] == "stop"
    assert found["text"] == text[: text.index(text[4:6])]


def test_warning_is_one_line(generate: Command) -> None:
    result = generate("--temperature", 0, "--top-k", 5)
    assert result.stderr.splitlines() == [
        "warning: top_k has no effect on greedy decoding: give temperature > 0 to sample"
    ]


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_interrupt_keeps_what_was_streamed(
    generate: Command, monkeypatch: pytest.MonkeyPatch, json_flag: list[str]
) -> None:
    pieces: list[str] = []
    stream = runs.stream

    def interrupted_stream(contender: Any, prompt: Any, settings: Any, write: Any) -> Streamed:
        def counting(piece: str) -> None:
            write(piece)
            pieces.append(piece)
            if len(pieces) == 2:
                signal.raise_signal(signal.SIGINT)

        return stream(contender, prompt, settings, counting)

    monkeypatch.setattr(runs, "stream", interrupted_stream)
    result = generate(*json_flag, "--temperature", 0)
    assert result.exit_code == 130
    if json_flag:
        found = json.loads(result.stdout)
        assert found["interrupted"] is True
        assert 0 < found["new_tokens"] < 12
        assert found["finish_reason"] is found["speedup"] is found["identical"] is None
    else:
        assert result.stdout.startswith("".join(pieces))
        assert "interrupted" in result.stdout
        assert "tau" in result.stdout


def test_first_difference_is_reported_with_its_logit_gap(eagle: Engine, plain: Engine) -> None:
    prompt = [5, 9, 1]
    truth = plain.generate(prompt, max_new_tokens=8, temperature=0)
    assert not isinstance(truth, list)
    wrong = [*truth.token_ids]
    wrong[3] = (wrong[3] + 1) % 60
    contenders = ContenderRuns(eagle, replace(truth, token_ids=wrong)), ContenderRuns(plain, truth)
    found = compare(*contenders, Streamed(prompt, greedy=True, interrupted=False))
    assert (found.identical, found.first_difference) == (False, 3)
    assert found.logit_gap is not None and found.logit_gap > 0
    assert "first difference at new token 3, in float64" in found.reason


def test_special_tokens_are_in_the_text_where_asked(
    generated: Callable[..., Any], tokenizer: Any
) -> None:
    shown = generated("--special-tokens", "--set", "eos_token_id=[]", "--no-plain")
    left_out = generated("--set", "eos_token_id=[]", "--no-plain")
    tokens = shown["token_ids"]
    assert tokens == left_out["token_ids"]
    assert shown["text"] == tokenizer.decode(tokens, skip_special_tokens=False)
    assert left_out["text"] == tokenizer.decode(tokens, skip_special_tokens=True)


def test_several_texts_are_written_and_compared(
    generated: Command, generate: Command, folder: Any
) -> None:
    asked = ("--temperature", 1, "--seed", 7, "--n", 3)
    found = generated(*asked)
    engine = Engine(folder, strategy="plain")
    due = engine.generate(
        [{"role": "user", "content": "HELLO"}], max_new_tokens=12, temperature=1, seed=7, n=3
    )
    assert isinstance(due, list)
    assert [text["token_ids"] for text in found["texts"]] == [each.token_ids for each in due]
    assert [text["seed"] for text in found["texts"]] == [each.seed for each in due]
    assert found["text"] == due[0].text and found["identical"] is True
    assert found["new_tokens"] == sum(len(each.token_ids) for each in due)
    shown = generate(*asked).stdout
    places = [shown.index(f"--- {number} of 3 ---\n{due[number - 1].text}") for number in (1, 2, 3)]
    assert places == sorted(places)
    assert f"{found['new_tokens']} tokens, in 3 texts" in shown


def test_log_probabilities_are_shown_and_printed(generated: Command, generate: Command) -> None:
    asked = ("--temperature", 0.5, "--seed", 7, "--logprobs", 2)
    found = generated(*asked)
    assert [each["token"] for each in found["logprobs"]] == found["token_ids"]
    assert all(len(each["top_raw"]) == 2 for each in found["logprobs"])
    assert any(each["raw"] != each["processed"] for each in found["logprobs"])
    shown = generate(*asked).stdout
    assert "likeliest raw" in shown and f"{found['logprobs'][0]['processed']:.3f}" in shown
    assert "logprobs" not in generated("--temperature", 0.5)
