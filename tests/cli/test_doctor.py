"""``specdec doctor``."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import specdec
from specdec.cli import hardware, installation
from specdec.cli.advice import advice
from specdec.errors import DISTRIBUTION, install_extra
from specdec.plugin.registry import Registry

Command = Callable[..., Any]
METADATA = """Metadata-Version: 2.1
Name: specdec-transformers
Version: 9
Requires-Python: >=3.10
Provides-Extra: gone
Provides-Extra: here
Provides-Extra: both
Requires-Dist: torch>=2
Requires-Dist: transformers<5
Requires-Dist: no-such-package>=1
Requires-Dist: absent-on-this-system; sys_platform == "none"
Requires-Dist: none-of-this>=3; extra == "gone"
Requires-Dist: pytest>=1; extra == "here"
Requires-Dist: specdec-transformers[gone]; extra == "both"
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Distributions that come before all others."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, metadata: str) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(metadata)

    return install


def machine(**changes: Any) -> dict[str, Any]:
    usual = {"gpus": [], "threads": 4, "cores_allowed": 4, "milliseconds": {}}
    return {**usual, "compiler": "c++", "c_compiler": "gcc", **changes}


def test_it_tells_versions_plugins_and_the_machine(
    run: Command, installed: Callable[[str, str], None]
) -> None:
    installed(DISTRIBUTION, METADATA.replace("transformers<5\n", "transformers>=5\n", 1))
    result = run("doctor", "--json")
    told = json.loads(result.stdout)
    versions = {row["name"]: row["version"] for row in told["packages"]}
    assert versions[DISTRIBUTION] == specdec.__version__
    (own,) = (row for row in told["packages"] if row["name"] == DISTRIBUTION)
    assert own["wanted"] == "" and own["folder"] == str(Path(specdec.__file__).parent)
    assert versions["torch"] == importlib.metadata.version("torch")
    assert [row["name"] for row in told["plugins"]] == [p.name for p in Registry.load().plugins]
    assert told["machine"]["threads"] == torch.get_num_threads()
    assert all(value > 0 for value in told["machine"]["milliseconds"].values())
    assert result.exit_code == 1 and "no-such-package" in str(told["problems"])
    shown = run("doctor")
    assert shown.exit_code == 1 and "problem:" in shown.stdout and "chat" not in shown.stderr
    assert own["folder"] in shown.stdout


def test_packages_beside_what_is_asked_for(installed: Callable[[str, str], None]) -> None:
    installed(DISTRIBUTION, METADATA)
    told = installation.examined()
    states = {row["name"]: row["state"] for row in told["packages"]}
    assert states == {
        DISTRIBUTION: "",
        "python": "",
        "torch": "",
        "transformers": "not what was asked for",
        "no-such-package": "missing",
    }
    assert len(told["problems"]) == 2
    assert told["extras"] == {
        "gone": ["none-of-this>=3"],
        "here": [],
        "both": ["none-of-this>=3"],
    }
    assert install_extra("gone") == "pip install 'specdec-transformers[gone]'"


def test_the_other_project_of_that_name_is_a_problem(
    installed: Callable[[str, str], None],
) -> None:
    installed(DISTRIBUTION, METADATA)
    before = installation.examined()["problems"]
    installed("specdec", "Metadata-Version: 2.1\nName: specdec\nVersion: 0.2.0\n")
    (new,) = [each for each in installation.examined()["problems"] if each not in before]
    assert "another project" in new and "pip uninstall specdec specdec-transformers" in new


def test_a_plugin_that_does_not_load_is_a_problem(
    run: Command, tmp_path: Path, installed: Callable[[str, str], None]
) -> None:
    installed("wreck", "Metadata-Version: 2.1\nName: wreck\nVersion: 1\n")
    (tmp_path / "wreck-9.dist-info" / "entry_points.txt").write_text("[specdec]\nw = no_module\n")
    told = installation.examined()
    assert any("the plugin w does not load: ModuleNotFound" in each for each in told["problems"])


def test_threads_that_do_not_fit_the_cores_are_told() -> None:
    assert advice(machine()) == []
    for threads in (1, 8):
        (row,) = advice(machine(threads=threads))
        assert row["what"] == "4 threads" and "--threads 4" in row["how"]


def test_weights_that_were_read_fastest_are_advised() -> None:
    measured = {"float32": 4.0, "float32 packed": 3.0, "bfloat16": 3.9, "bfloat16 packed": 2.0}
    assert [row["how"] for row in advice(machine(milliseconds=measured))] == [
        "--dtype bfloat16 --pack",
        "--pack",
    ]
    even = dict.fromkeys(measured, 4.0)
    assert advice(machine(milliseconds=even)) == []
    (row,) = advice(machine(milliseconds={"float32": 4.0, "bfloat16": 2.0}))
    assert row["how"] == "--dtype bfloat16" and "second copy" not in row["why"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], dict[str, Any]]:
    """The machine as it is found with two GPUs, an A100 and one of some compute capability."""

    def found(*capability: int) -> dict[str, Any]:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_name", "A100 {}".format)
        capabilities = [(8, 0), capability]
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: capabilities[i])
        same = {"threads": 4, "cores_allowed": 4, "c_compiler": "gcc"}
        return {**hardware.hardware(), **same}

    return found


def test_bfloat16_is_advised_on_gpus_that_compute_in_it_alone(gpu: Command) -> None:
    assert gpu(8, 6)["compute_capabilities"] == [[8, 0], [8, 6]]
    assert [row["how"] for row in advice(gpu(9, 0))] == ["--dtype bfloat16"]
    assert advice(gpu(7, 5)) == []


def test_threads_and_a_compiler_are_advised_beside_a_gpu_too(gpu: Command) -> None:
    rows = advice({**gpu(7, 5), "threads": 8, "c_compiler": None})
    assert [row["what"] for row in rows] == ["4 threads", "a C compiler"]


def test_a_compiler_is_advised_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row["what"] for row in advice(machine(compiler=None))] == ["a C++ compiler"]
    assert advice(machine(c_compiler=None)) == [], "on a CPU it is C++"
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(hardware, "milliseconds", dict)
    found = hardware.hardware()
    assert found["compiler"] is None and found["c_compiler"] is None


def test_what_is_measured_is_a_time_of_each_kind() -> None:
    found = hardware.milliseconds()
    assert {"float32", "bfloat16"} <= found.keys() and all(each > 0 for each in found.values())
