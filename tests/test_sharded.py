"""A tensor-parallel target: every rank writes the tokens that one process writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from pages import ROOT, snippets
from sharded_decoding import MULTIPLES, ends_at, in_generate, likely
from tiny import EOS, PROMPTS
from transformers.distributed import DistributedConfig

from specdec import Engine
from specdec.errors import UnsupportedModelError
from specdec.models.ranks import Ranks

RANKS = 2
# For each rank its own arguments of generate.
REFUSED: dict[str, dict[str, list[Any]]] = {
    "other settings": {"max_new_tokens": [3, 4]},
    "a rank's own mistake": {"logits_processor": [["no processor"], None]},
    "a mistake in one prompt's processor": {"logits_processor": ["a processor for one", None]},
    "a seed on the first rank alone": {"seed": [3, None]},
    "a seed on the second rank alone": {"seed": [None, 3]},
    "other batches": {"batch_size": [1, 2]},
    "no batch": {"batch_size": [None, 0]},
    "a streamer beside batches": {"streamer": ["a streamer", None], "batch_size": [1, 1]},
    "a streamer of one text": {"streamer": ["a streamer of one text", None]},
    "what is no streamer": {"streamer": [None, 1]},
}
IN_GENERATE: dict[str, dict[str, list[Any]]] = {
    "a criterion on the first rank alone": {"stopping_criteria": ["a criterion", None]},
    "a seed on the second rank alone": {"seed": [None, 3], "do_sample": [True, True]},
    "a setting that is refused": {"prefill_chunk_size": [4, None]},
}
TIMEOUT = 300  # seconds; a rank that waits for another waits for ever
SCRIPT = Path(__file__).parent / "sharded_decoding.py"
NO_ACCELERATOR = {"CUDA_VISIBLE_DEVICES": ""}
COLD: dict[str, Any] = {"max_new_tokens": 10, "temperature": 0, "eos_token_id": [EOS]}
WARM: dict[str, Any] = {**COLD, "temperature": 1.0, "seed": 3}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def run(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """What each rank prints."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(RANKS)}
    ranks = []
    for rank in range(RANKS):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        ranks.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), json.dumps(asked)],
                env={**os.environ, **NO_ACCELERATOR, **place, **own},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        printed = [rank.communicate(timeout=TIMEOUT) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, (_, errors) in zip(ranks, printed, strict=True):
        assert rank.returncode == 0, errors[-4000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in printed]


@pytest.fixture
def asked(model: Any, head: Path, draft: Path, tmp_path: Path) -> dict[str, Any]:
    """Strategies whose drafts take layers of the target, and such as look at the clock."""
    auto = {
        "strategy": "auto",
        "drafter": "draft_model",
        "options": {"policy": {"depth": 3}, "drafter": {"checkpoint": str(draft)}},
    }
    drafter = {"checkpoint": str(head)}
    eagle = {"strategy": "eagle2", "options": {**tiny.EAGLE2, "drafter": drafter}}
    few = {**eagle, "options": {**tiny.EAGLE2, "drafter": {**drafter, "vocabulary": 50}}}
    cases = {
        "plain": {"engine": {"strategy": "plain"}, "settings": WARM},
        "eagle2": {"engine": eagle, "settings": WARM},
        "eagle2, cold": {"engine": few, "settings": COLD},
        "auto": {"engine": auto, "settings": WARM},
        "lookup": {"engine": {"strategy": "lookup"}, "settings": {**COLD, "eos_token_id": []}},
        "lookahead": {"engine": {"strategy": "lookahead"}, "settings": WARM},
        "rejection": {
            "engine": {"strategy": "draft_model", "drafter": str(draft)},
            "settings": WARM,
        },
    }
    return {
        "model": str(tiny.save_model(model, tmp_path / "model")),
        "dtype": "float64",
        "prompts": PROMPTS,
        "cases": cases,
        "refused": {},
        "refused in generate": {},
        "patience": TIMEOUT - 10,
    }


def test_every_rank_writes_the_tokens_of_one_process(
    asked: dict[str, Any], model: Any, plain: Engine
) -> None:
    asked["cases"]["without a seed"] = {
        "engine": {"strategy": "lookup"},
        "settings": {**COLD, "temperature": 1.0},
    }
    asked |= {"refused": REFUSED, "refused in generate": IN_GENERATE}
    asked["cases"]["by the clock"] = {
        "engine": {"strategy": "lookup"},
        "settings": {**WARM, "max_new_tokens": 200, "eos_token_id": [], "max_time": 0.1},
    }
    asked["cases"]["criteria"] = {
        **asked["cases"]["eagle2"],
        "settings": {**WARM, "n": 2, "logprobs": 2, "no_repeat_ngram_size": 1},
        "criteria": True,
    }
    first, second = run(asked)
    assert first == second
    assert first["rows"] < len(model.lm_head.weight), "otherwise nothing is sharded"
    found = first["tokens"]
    for name in ("without a seed", "by the clock"):
        del asked["cases"][name], found[name]
    case, ends = asked["cases"].pop("criteria"), ends_at(MULTIPLES[0])
    wanted = Engine(model, **case["engine"]).generate(
        PROMPTS, stopping_criteria=ends, **case["settings"]
    )
    assert found["criteria"] == [result.token_ids for result in wanted]
    assert first["best"]["criteria"] == likely(wanted)
    assert first["in generate"] == in_generate(model, PROMPTS, 0)
    for name, case in asked["cases"].items():
        engine = Engine(model, **case["engine"])
        wanted = tiny.tokens(engine, PROMPTS, **case["settings"])
        assert found[name] == wanted, name
        if name != "rejection":
            assert wanted == tiny.tokens(plain, PROMPTS, **case["settings"]), name
    assert "pack=True needs the weights in one place" in first["refused"].pop("pack")
    assert "use generate or stream" in first["refused"].pop("astream")
    assert len(first["refused"]) == len(REFUSED) + len(IN_GENERATE)
    for said in first["refused"].values():
        assert "given different prompts or settings" in said


def test_a_sharded_model_in_half_precision_is_decoded_alike_by_every_rank(
    asked: dict[str, Any],
) -> None:
    """Which tokens is left to rounding: a sum over ranks is rounded once more."""
    asked["cases"] = {"lookup": {"engine": {"strategy": "lookup"}, "settings": COLD}}
    first, second = run({**asked, "dtype": "bfloat16"})
    assert first == second
    assert all(first["tokens"]["lookup"])


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        ({"tp_size": 2, "ep_size": 2}, "ep_size"),
        ({"tp_size": 2, "pp_size": 2}, "pp_size"),
        ({"fsdp_size": 2, "ep_size": 2}, "fsdp_size, ep_size"),
        ({"tp_size": 2, "fsdp_size": 2}, "fsdp_size"),
        ({"tp_size": 2, "dp_replicate_size": 2}, "dp_replicate_size"),
    ],
    ids=str,
)
def test_a_model_that_is_sharded_otherwise_is_refused(plan: dict[str, int], names: str) -> None:
    """As transformers notes it in the config of a model that it has sharded."""
    model = tiny.make_model()
    model.config.distributed_config = DistributedConfig(**plan)
    assert Ranks.of(model) is None, "a whole model of that config"
    model._mesh_manager = object()
    with pytest.raises(UnsupportedModelError, match=rf"is sharded by {names}: specdec decodes"):
        Engine(model, strategy="plain")
    model.config.distributed_config = DistributedConfig(tp_size=2)
    assert Ranks.of(model) is None, "no weight of it is a part"


def torchrun(folder: Path, *command: Any) -> Any:
    """What comes of a command of two processes, started in a folder."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", RANKS]
    return subprocess.run(
        list(map(str, [sys.executable, *launcher, "--master-port", free_port(), *command])),
        cwd=folder,
        env={**os.environ, **NO_ACCELERATOR},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.slow
def test_the_command_writes_the_text_of_one_process_once_under_torchrun(
    model: Any, tokenizer: Any, head: Path, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tiny.save_model(model, tmp_path / "model"))
    parts = ["--strategy", "eagle2", "--drafter", head]
    asked = ["generate", "HELLO", "--raw", "-m", "model", *parts, "--temperature", 1]
    asked += ["--max-new-tokens", 12, "--repeat", 1, "--json", "--tensor-parallel"]
    ran = torchrun(tmp_path, "-m", "specdec.cli", *asked)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found = json.loads(ran.stdout)
    one = Engine(tmp_path / "model", strategy="plain")
    wanted = one.generate("HELLO", temperature=1.0, seed=found["seed"], max_new_tokens=12)
    assert found["token_ids"] == wanted.token_ids
    assert (found["text"], found["identical"]) == (wanted.text, True)
    refused = torchrun(tmp_path, "-m", "specdec.cli", *asked[:-2], "--tensor-parallel", "--pack")
    assert refused.returncode != 0
    assert refused.stderr.count("error: ") == 1, "told once"
    assert "those of this model are sharded over several processes" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_script_of_the_documentation_runs_under_torchrun(dtype: str, tmp_path: Path) -> None:
    """In half precision texts may part where two tokens are a rounding apart."""
    (snippet,) = [each for each in snippets() if each.needs == "two processes"]
    shards = "tensor_parallel=True"
    code = snippet.code.replace(shards, f'{shards}, dtype="{dtype}"')
    assert dtype in code
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    (tmp_path / "model").symlink_to(ROOT / "specdec" / "models" / "chat-7m" / "target")
    ran = torchrun(tmp_path, "script.py")
    assert ran.returncode == 0, ran.stderr[-4000:]
    engine = Engine(tmp_path / "model", strategy="plain", dtype=dtype)
    wanted = engine.generate("One, two, three,", max_new_tokens=32).text or ""
    alike = len(wanted) if dtype == "float32" else 12
    assert ran.stdout.strip()[:alike] == wanted.strip()[:alike]
