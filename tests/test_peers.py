"""benchmarks/peers: decoders in processes of their own, one report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "peers" / "run.py"


@pytest.mark.slow
def test_a_run_measures_who_starts_and_says_why_others_do_not_without_a_path_of_the_machine(
    tmp_path: Path,
) -> None:
    prompts, written = tmp_path / "prompts.jsonl", tmp_path / "report.json"
    prompts.write_text('{"prompt": "Count to ten."}\n', encoding="utf-8")
    command = [sys.executable, str(SCRIPT), "--data", str(prompts), "--json", str(written)]
    command += ["--prompts", "1", "--max-new-tokens", "8", "--repetitions", "1", "--threads", "1"]
    command += ["--dtype", "float32", "--eagle", "nowhere", "--vllm-python", "no-python"]
    for label in ("specdec eagle2, fitted tree", "official EAGLE, fitted tree", "vLLM"):
        command += ["--only", label]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report = json.loads(written.read_text(encoding="utf-8"))

    results = {result["strategy"]: result for result in report["results"]}
    assert list(results) == ["transformers", "specdec eagle2, fitted tree"]
    assert all(result["identical"] for result in results.values())
    assert results["transformers"]["tau"] == 1 < results["specdec eagle2, fitted tree"]["tau"]

    skipped = report["skipped"]
    assert "ea_model.py" in skipped["official EAGLE, fitted tree"]
    assert "no-python" in skipped["vLLM"]
    assert all(told in printed for told in (*results, *skipped.values()))

    assert "--data PROMPTS" in report["command"] and "--json REPORT" in report["command"]
    assert str(tmp_path) not in printed + report["command"]
