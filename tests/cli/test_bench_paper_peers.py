"""``specdec bench paper --peers``: other decoders beside the strategies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from specdec.bench import Settings
from specdec.bench.baseline import TransformersContender
from specdec.bench.contenders import ContenderError, Decoded
from specdec.cli.paper_contenders import PaperEngines

pytest.importorskip("matplotlib")

Command = Callable[..., Any]


# Stands for a checkout of the official code: the same calls, and plain decoding behind them.
OFFICIAL = """
from types import SimpleNamespace
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

class EaModel:
    @classmethod
    def from_pretrained(cls, base_model_path, ea_model_path, torch_dtype, **_):
        own = cls()
        with safe_open(ea_model_path + "/model.safetensors", "pt") as weights:
            names = [*weights.keys(), "embed_tokens.weight"]
        own.model = AutoModelForCausalLM.from_pretrained(base_model_path, dtype=torch_dtype)
        own.ea_layer = SimpleNamespace(init_tree=lambda: None, state_dict=lambda: names)
        return own

    def eval(self):
        return self

    def eagenerate(self, ids, temperature, max_new_tokens, max_length, log):
        assert self.ea_layer.total_tokens == 60
        output = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=temperature > 0, top_k=0,
            temperature=temperature or 1.0, pad_token_id=0,
            max_new_tokens=max_new_tokens + 1, eos_token_id=None,
        )
        return output, max_new_tokens, 3
"""


@pytest.mark.slow
def test_the_papers_comparison_with_the_official_code(paper: Command, tmp_path: Path) -> None:
    checkout, out = tmp_path / "checkout", tmp_path / "out"
    (checkout / "eagle" / "model").mkdir(parents=True)
    (checkout / "eagle" / "model" / "ea_model.py").write_text(OFFICIAL, encoding="utf-8")
    result = paper(
        *(out, "--prompts", 1, "--turns", 1, "--strategies", "eagle2", "--temperature", "0,1"),
        *("--no-transformers", "--no-prompt-lookup", "--peers", f"eagle.checkout={checkout}"),
    )
    assert result.exit_code == 0, result.stderr
    for report in json.loads((out / "results.json").read_text())["reports"]:
        rows = {row["strategy"]: row for row in report["results"]}
        assert list(rows) == ["plain", "eagle2", "official eagle2"]
        official = rows["official eagle2"]
        assert official["identical"] is (None if report["settings"]["temperature"] else True)
        assert official["tau"] == official["new_tokens"] / (2 * 5)
        assert official["draft_forwards"] is None
        assert official["mode"] == {"depth": 6, "top_k": 10, "budget": 60}
        assert official["dtype"] == report["dtype"] and official["commit"] is None
        assert {"torch", "transformers"} <= set(official["versions"])
        assert str(tmp_path) not in json.dumps(official)
    assert "| official eagle2 |" in (out / "results.md").read_text()


@dataclass
class Failing:
    """A peer that decodes as transformers does, some times."""

    inner: TransformersContender
    times: int
    label: str = "failing"
    most_rows: int | None = 1

    def decode(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], settings: Settings
    ) -> Decoded:
        self.times -= 1
        if self.times < 0:
            raise ContenderError("the peer failed: out of memory")
        return self.inner.decode(rows, seeds, settings)

    def may_differ(self, *, greedy: bool) -> str | None:
        return self.inner.may_differ(greedy=greedy)

    def facts(self) -> dict[str, Any]:
        return {"lossless": True}


Beside = Callable[[int], None]


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Beside:
    """Has a peer that fails after so many calls run in place of those in other processes."""

    def use(times: int) -> None:
        @contextmanager
        def started(
            given: Any, registry: Any, compared: PaperEngines, *_: Any, **__: Any
        ) -> Iterator[Any]:
            engine = next(iter(compared.engines.values()))
            yield [Failing(TransformersContender(engine), times)]

        monkeypatch.setattr("specdec.cli.paper_peers.started_peers", started)

    return use


FEW = ("--strategies", "eagle2", "--temperature", 0, "--no-transformers", "--turns", 1)


def test_what_was_finished_before_a_peer_failed_is_written(
    paper: Command, beside: Beside, tmp_path: Path
) -> None:
    beside(3)
    result = paper(tmp_path, *FEW, "--no-prompt-lookup")
    assert result.exit_code == 2
    told = "error: the peer failed: out of memory; what was finished before is written"
    assert result.stderr.splitlines()[-1] == told
    (report,) = json.loads((tmp_path / "results.json").read_text())["reports"]
    assert [row["prompts"] for row in report["results"]] == [2, 2, 2]
    assert report["interrupted"] and report["failure"] in (tmp_path / "results.md").read_text()


def test_tables_are_shown_though_a_figure_cannot_be_written(paper: Command, tmp_path: Path) -> None:
    (figure := tmp_path / "tasks-t0.png").mkdir()
    result = paper(tmp_path, *FEW, "--no-prompt-lookup", "--prompts", 1)
    assert result.exit_code == 2 and "speedup over plain decoding" in result.stdout
    told = f"error: --out {figure} cannot be written (Is a directory): give another place"
    assert result.stderr.splitlines()[-1] == told


def test_what_is_left_out_of_larger_batches_is_named(
    paper: Command, beside: Beside, tmp_path: Path
) -> None:
    beside(10)
    result = paper(tmp_path, *FEW, "--batch-size", "1,2", "--prompts", 1)
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    one, two = ({row["strategy"] for row in report["results"]} for report in found["reports"])
    assert one - two == {"failing", "transformers prompt lookup"}
    assert set(found["left_out"]) == {f"{label} in batches" for label in one - two}
    assert all(f"left out: {label}" in result.stderr for label in found["left_out"])
