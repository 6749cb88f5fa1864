"""``specdec inspect`` and ``specdec convert``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pages
import pytest
import tiny
import torch
from heads import LAYERS, LAYOUTS, head_for, in_layout
from safetensors.torch import load_file, save_file

from specdec.plugin.embedded_model import EMBEDDED
from specdec_plugins.eagle.keys import renamed

Command = Callable[..., Any]
PAGES = ("docs/heads.md", "docs/serving.md")
SHOWN = [each for each in pages.commands("specdec") if each.page in PAGES]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A target of eight layers, and its folder."""
    model = tiny.make_model(tiny.llama_config(num_hidden_layers=LAYERS))
    return model, tiny.save_model(model, tmp_path_factory.mktemp("deep"))


def told(run: Command, *arguments: Any) -> tuple[int, dict[str, Any]]:
    result = run("inspect", *arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return renamed(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_head_is_told_by_family_layout_flags_and_whether_it_fits(
    run: Command, deep: Any, tmp_path: Path, layout: str
) -> None:
    model, folder = deep
    head = in_layout(layout, head_for(model)).save(tmp_path / "head")
    code, alone = told(run, head)
    assert code == 0 and "fits" not in alone
    assert (alone["kind"], alone["layout"]) == ("EAGLE-3 head", layout)
    assert alone["tensors"] == "complete" and alone["draft_vocab_size"] == 45
    usual = layout in ("official", "angelslim")
    assert alone["aux_layers"] == (None if usual else [2, 4, 5])
    code, fitted = told(run, head, "--model", folder)
    assert code == 0 and fitted["fits"] and fitted["aux_layers"] == [2, 4, 5]
    assert {**alone, "aux_layers": [2, 4, 5]}.items() <= fitted.items()


def test_what_does_not_fit_is_named_and_the_exit_code_says_so(
    run: Command, deep: Any, folder: Path, tmp_path: Path
) -> None:
    written = in_layout("vllm", head_for(deep[0]))
    head = written.save(tmp_path / "head")
    code, other = told(run, head, "-m", folder)  # of two layers
    assert code == 1 and not other["fits"] and "has 2 layers" in other["mismatch"]
    del written.weights["norm.weight"]
    damaged = written.save(tmp_path / "damaged")
    code, row = told(run, damaged)
    assert code == 0 and "missing keys: norm.weight" in row["tensors"]
    code, row = told(run, damaged, "-m", deep[1])
    assert code == 1 and "missing keys: norm.weight" in row["mismatch"]
    shown = run("inspect", damaged)
    assert shown.exit_code == 0 and "missing keys: norm.weight" in shown.stdout


def test_an_eagle_head_is_told(run: Command, head: Path, folder: Path) -> None:
    code, row = told(run, head, "--model", folder)
    assert code == 0 and row["fits"] and row["kind"] == "EAGLE-1/2 head"
    assert row["biases"] == ["fc"] and "would drop fc.bias" in row["vllm"]


def test_a_head_that_vllm_serves_whole_has_no_note(run: Command, deep: Any, tmp_path: Path) -> None:
    assert "vllm" not in told(run, EMBEDDED.drafters["eagle"])[1]
    eagle3 = in_layout("official", head_for(deep[0])).save(tmp_path / "head")
    assert "vllm" not in told(run, eagle3)[1]


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_of_the_pages_about_heads_runs(
    run: Command, deep: Any, tmp_path: Path, command: pages.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("head", "path/to/head"):
        in_layout("speculators", head_for(deep[0])).save(tmp_path / name)
    Path("org").mkdir()
    Path("org/model").symlink_to(deep[1])
    done = run(*command.words[1:])
    assert done.exit_code == 0, done.output


def test_an_unknown_entry_is_named_and_read_without_where_it_is_ignored(
    run: Command, deep: Any, tmp_path: Path
) -> None:
    written = in_layout("vllm", head_for(deep[0]))
    written.fields["eagle_config"]["new_trick"] = 1
    head, out = written.save(tmp_path / "head"), tmp_path / "out"
    result = run("inspect", head)
    assert result.exit_code == 2 and 'ignore=["eagle_config.new_trick"]' in result.stderr
    ignore = ("--set", 'ignore=["eagle_config.new_trick"]')
    code, row = told(run, head, *ignore)
    assert code == 0 and row["tensors"] == "complete"
    result = run("convert", head, out, "--to", "specforge", *ignore)
    assert result.exit_code == 0 and told(run, out)[0] == 0


def test_what_is_no_head_is_refused_by_name(run: Command, folder: Path, tmp_path: Path) -> None:
    result = run("inspect", folder)
    assert result.exit_code == 2 and "is a whole language model, no head" in result.stderr
    assert "none of" not in result.stderr
    result = run("inspect", tmp_path)
    assert result.exit_code == 2 and result.stderr.count("has no config.json") == 1
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for command in (["inspect", tmp_path], ["convert", tmp_path, "out", "--to", "official"]):
        told = run(*command).stderr.rstrip()
        assert str(tmp_path) in told and ";" not in told
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text('{"speculators_model_type": "peagle"}')
    result = run("inspect", tmp_path)
    assert result.exit_code == 2 and "is a P-EAGLE head" in result.stderr
    result = run("inspect", tmp_path / "nowhere")
    assert result.exit_code == 2 and "nowhere" in result.stderr


@pytest.mark.parametrize("chain", [
    ("official", "speculators", "specforge", "official"),
    ("specforge", "official", "speculators", "specforge"),
    ("speculators", "specforge", "official", "speculators"),
])  # fmt: skip
@pytest.mark.parametrize("size", [45, tiny.VOCAB])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_conversions_there_and_back_are_bit_exact(
    run: Command, deep: Any, tmp_path: Path, chain: tuple[str, ...], size: int, dtype: torch.dtype
) -> None:
    first = in_layout(chain[0], head_for(deep[0], draft_vocab_size=size).to(dtype))
    if size == tiny.VOCAB:
        del first.weights["d2t"], first.weights["t2d"]
    folder = source = first.save(tmp_path / "0")
    for number, layout in enumerate(chain[1:], start=1):
        out = tmp_path / str(number)
        needs = {"speculators": ["--set", "target=x"], "official": ["-m", deep[1]]}
        named = needs.get(layout, [])
        result = run("convert", folder, out, "--to", layout, *named)
        assert result.exit_code == 0, result.stderr
        assert told(run, out)[1]["layout"] == layout
        folder = out
    before, after = tensors(source), tensors(folder)
    for name in before:
        assert torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype
    assert after.keys() - before.keys() <= {"d2t", "t2d"}
    assert told(run, folder, "-m", deep[1])[1]["fits"]
    unequal = {"checkpoint", "aux_layers", "aux_layers_read", "not_said_for_certain", "bytes"}
    unequal |= {"made_for"}
    told_before, told_after = told(run, source)[1], told(run, folder)[1]
    assert {k: v for k, v in told_before.items() if k not in {*unequal, "dtypes"}} == {
        k: v for k, v in told_after.items() if k not in {*unequal, "dtypes"}
    }


INEXPRESSIBLE: list[tuple[dict[str, Any], str, str]] = [
    ({"qk_norm": True}, "official", "norms of queries and keys"),
    ({"num_hidden_layers": 2}, "specforge", "several layers"),
    ({"norm_output": True}, "official", "norm output"),
    ({"norm_output": True}, "specforge", "norm output"),
    ({"norm_before_residual": True}, "official", "norm before residual"),
    ({"norm_before_fc": True}, "specforge", "norm before fc"),
    ({"fc_norm": True}, "official", "fc norm"),
    ({"aux_layers": (2, 3, 8)}, "official", "does not say which hidden states a head"),
    ({"aux_layers": (3, 4, 5)}, "specforge", "auxiliary layers that begin with 0 or 3"),
    ({"aux_layers": (2, 4)}, "specforge", "other than three auxiliary layers"),
    ({"sliding_window": 4}, "official", "sliding windows"),
]


@pytest.mark.parametrize(("flags", "layout", "says"), INEXPRESSIBLE, ids=lambda v: str(v)[:40])
def test_what_a_layout_cannot_say_is_refused_and_nothing_is_written(
    run: Command, deep: Any, tmp_path: Path, flags: dict[str, Any], layout: str, says: str
) -> None:
    from specdec_plugins.eagle.saving import save_head

    save_head(head_for(deep[0], **flags), tmp_path / "head", "speculators")
    result = run("convert", tmp_path / "head", tmp_path / "out", "--to", layout)
    assert result.exit_code == 2 and says in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_the_official_layout_has_what_the_official_code_reads_and_nothing_that_misleads_it(
    run: Command, deep: Any, tmp_path: Path
) -> None:
    """It knows no rope_parameters, and takes no embeddings of a target whose size is named."""
    written = in_layout("specforge", head_for(deep[0]))
    written.fields["rope_scaling"] = {"rope_type": "linear", "factor": 2}
    model = ["-m", deep[1]]
    run("convert", written.save(tmp_path / "head"), tmp_path / "out", "--to", "official", *model)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["rope_scaling"] == {"type": "linear", "factor": 2.0}
    assert not {"rope_parameters", "target_hidden_size"} & fields.keys()
    written.fields |= {"rope_theta": 50000.0}  # its linear rope has a fixed base
    other = written.save(tmp_path / "other")
    result = run("convert", other, tmp_path / "no", "--to", "official")
    assert result.exit_code == 2 and "rope of that type or base" in result.stderr


def test_the_official_layout_is_not_written_where_other_auxiliary_layers_would_be_read(
    run: Command, deep: Any, tmp_path: Path
) -> None:
    """[2, 4, 5] are the usual of eight layers, and of no other number."""
    head, out = (
        in_layout("speculators", head_for(deep[0])).save(tmp_path / "head"),
        tmp_path / "out",
    )
    nine = tiny.make_model(tiny.llama_config(num_hidden_layers=LAYERS + 1))
    other = tiny.save_model(nine, tmp_path / "nine")
    for more, says in (
        ([], "give the target model (--model), so that it is known"),
        (["-m", other], "[2, 4, 5] are not 2, n // 2, n - 3 of n = 9 layers"),
    ):
        result = run("convert", head, out, "--to", "official", *more)
        assert result.exit_code == 2 and says in result.stderr
        assert not out.exists()
    assert run("convert", head, out, "--to", "official", "-m", deep[1]).exit_code == 0


def test_a_head_that_names_another_target_is_told_and_fits(
    run: Command, deep: Any, tmp_path: Path
) -> None:
    written = in_layout("speculators", head_for(deep[0]))
    for name, another in (("Org/Other", True), (f"Org/{Path(deep[1]).name.upper()}", False)):
        written.fields["speculators_config"]["verifier"]["name_or_path"] = name
        code, row = told(run, written.save(tmp_path / "head"), "-m", deep[1])
        assert code == 0 and row["fits"]
        wanted = f"it names {name} as its target, and this model is {deep[1]}" if another else None
        assert row["made_for_another"] == wanted
    assert "made_for_another" not in told(run, tmp_path / "head")[1]


def test_numbers_that_depend_on_the_target_wait_for_it(
    run: Command, deep: Any, tmp_path: Path
) -> None:
    """Whether 8 is the last layer or a state after it is known with the model alone."""
    written = in_layout("specforge", head_for(deep[0], aux_layers=(5, 6, 8)))
    written.fields["eagle_config"] = {"eagle_aux_hidden_state_layer_ids": [5, 6, 8]}
    head, out = written.save(tmp_path / "head"), tmp_path / "out"
    assert told(run, head)[1]["aux_layers"] is None
    assert told(run, head, "-m", deep[1])[1]["aux_layers"] == [5, 6, 8]
    result = run("convert", head, out, "--to", "speculators")
    assert result.exit_code == 2 and "give the model, or aux_layers" in result.stderr
    for more in (["-m", deep[1]], ["--set", "aux_layers=[5, 6, 8]", "--set", "target=x"]):
        result = run("convert", head, out, "--to", "speculators", *more)
        assert result.exit_code == 0, result.stderr
        assert told(run, out)[1]["aux_layers"] == [5, 6, 8]
        shutil.rmtree(out)


def test_what_a_head_does_not_say_is_told_or_given(run: Command, deep: Any, tmp_path: Path) -> None:
    written = in_layout("specforge", head_for(deep[0]))
    written.fields["norm_output"] = True
    head, out = written.save(tmp_path / "head"), tmp_path / "out"
    named = ["--set", "target=x"]
    result = run("convert", head, out, "--to", "speculators", *named)
    assert result.exit_code == 0
    assert "does not say norm_before_residual, norm_output, aux_layers for" in result.stderr
    given = {"norm_before_residual": True, "norm_output": True, "aux_layers": [1, 2, 3]}
    sets = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    named += [part for each in sets for part in ("--set", each)]
    assert given.items() <= told(run, head, *named)[1].items()
    other = tmp_path / "other"
    result = run("convert", head, other, "--to", "speculators", *named)
    assert result.exit_code == 0 and "for certain" not in result.stderr
    assert given.items() <= told(run, other)[1].items()
    result = run("inspect", head, "--set", "norm_outputs=1")
    assert result.exit_code == 2 and "did you mean 'norm_output'" in result.stderr
    result = run("inspect", head, "--set", "norm_output=maybe")
    assert result.exit_code == 2 and "--set norm_output='maybe'" in result.stderr


def test_a_head_without_a_norm_before_its_lm_head_stays_so(
    run: Command, deep: Any, tmp_path: Path
) -> None:
    written = in_layout("specforge", head_for(deep[0]))
    written.fields["norm_output"] = False
    head, out = written.save(tmp_path / "head"), tmp_path / "out"
    assert told(run, head)[1]["final_norm"] is False
    assert run("convert", head, out, "--to", "specforge").exit_code == 0
    assert json.loads((out / "config.json").read_text())["norm_output"] is False
    assert torch.equal(tensors(out)["norm.weight"], tensors(head)["norm.weight"])
    for layout in ("official", "speculators"):
        result = run("convert", head, tmp_path / "no", "--to", layout)
        assert result.exit_code == 2 and "cannot say what this head computes" in result.stderr


@pytest.mark.parametrize("layout", ["official", "speculators", "specforge"])
def test_a_tied_head_is_written_whole(run: Command, deep: Any, tmp_path: Path, layout: str) -> None:
    whole = head_for(deep[0], draft_vocab_size=tiny.VOCAB, own_embedding=True)
    written = in_layout("vllm", whole)
    written.fields["tie_word_embeddings"] = True
    del written.weights["lm_head.weight"]
    head, out = written.save(tmp_path / "head"), tmp_path / "out"
    result = run("convert", head, out, "--to", layout, "-m", deep[1])
    assert result.exit_code == 0, result.stderr
    assert torch.equal(tensors(out)["lm_head.weight"], tensors(head)["embed_tokens.weight"])


def test_layers_that_fc_does_not_read_are_told(run: Command, deep: Any, tmp_path: Path) -> None:
    written = in_layout("speculators", head_for(deep[0]))
    written.fields["eagle_aux_hidden_state_layer_ids"] = [2, 4]
    code, row = told(run, written.save(tmp_path / "head"))
    assert code == 0 and "names 2 auxiliary layers [2, 4]" in row["tensors"]


ROPES = (
    {"type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048},
)


@pytest.mark.parametrize("rope", ROPES)
def test_the_rope_of_an_eagle_head_is_written_where_the_official_code_reads_it(
    run: Command, head: Path, tmp_path: Path, rope: dict[str, Any]
) -> None:
    own, out = Path(shutil.copytree(head, tmp_path / "own")), tmp_path / "out"
    fields = {**json.loads((own / "config.json").read_text()), "rope_scaling": rope}
    fields.pop("rope_parameters", None)
    (own / "config.json").write_text(json.dumps(fields))
    result = run("convert", own, out, "--to", "official")
    if rope.get("type") == "linear":
        assert result.exit_code == 0, result.stderr
        assert json.loads((out / "config.json").read_text())["rope_scaling"] == rope
    else:
        assert result.exit_code == 2 and "rope of that type or base" in result.stderr


def verifier(folder: Path) -> Any:
    fields = json.loads((folder / "config.json").read_text())
    return fields["speculators_config"]["verifier"]


def test_the_layout_of_speculators_names_the_target_or_is_refused(
    run: Command, deep: Any, tmp_path: Path
) -> None:
    """vLLM does not load a head of that layout without it."""
    unnamed = in_layout("specforge", head_for(deep[0])).save(tmp_path / "unnamed")
    named = in_layout("speculators", head_for(deep[0])).save(tmp_path / "named")

    def converted(head: Path, *more: Any) -> Any:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        result = run("convert", head, out, "--to", "speculators", *more)
        return verifier(out) if result.exit_code == 0 else result.stderr

    assert "give --model, or --set target=" in converted(unnamed)
    assert converted(named) == {"name_or_path": "x", "architectures": []}
    model = {"name_or_path": str(deep[1]), "architectures": ["LlamaForCausalLM"]}
    assert converted(unnamed, "--model", deep[1]) == model
    assert converted(named, "--model", deep[1])["name_or_path"] == "x"
    given = converted(named, "--model", deep[1], "--set", "target=org/model")
    assert given == {**model, "name_or_path": "org/model"}
    assert told(run, named)[1]["made_for"] == "x" and told(run, unnamed)[1]["made_for"] is None


def test_a_target_in_the_cache_of_the_hub_is_named_by_its_id() -> None:
    from specdec_plugins.eagle.named_target import NamedTarget

    class Target:
        class model:
            class config:
                name_or_path = "/any/models--org--some-model/snapshots/0f3a"
                architectures = None

    named: Any = NamedTarget.of(Target)  # type: ignore[arg-type]
    assert named == NamedTarget("org/some-model")


def test_an_eagle_head_for_sglang_has_its_name_and_a_bias(
    run: Command, head: Path, tmp_path: Path
) -> None:
    """Its network has an ``fc.bias``, which would stay random where none is loaded."""
    whole = tensors(head)
    fields = json.loads((head / "config.json").read_text())
    for name, bias in (("with", whole["fc.bias"]), ("without", None)):
        own, out = Path(shutil.copytree(head, tmp_path / name)), tmp_path / f"{name}-out"
        if bias is None:
            del whole["fc.bias"]
            save_file(whole, own / "model.safetensors")
            (own / "config.json").write_text(json.dumps({**fields, "bias": False}))
        result = run("convert", own, out, "--to", "sglang")
        assert result.exit_code == 0, result.stderr
        written = json.loads((out / "config.json").read_text())
        assert written["architectures"] == ["LlamaForCausalLMEagle"] and "bias" not in written
        wanted = torch.zeros_like(whole["fc.weight"][:, 0]) if bias is None else bias
        assert torch.equal(tensors(out)["fc.bias"], wanted)
        assert tensors(out).keys() == whole.keys() | {"fc.bias"}
        assert told(run, out)[1]["tensors"] == "complete"


def test_an_eagle3_head_for_sglang_is_specforges(run: Command, deep: Any, tmp_path: Path) -> None:
    source = in_layout("official", head_for(deep[0])).save(tmp_path / "head")
    outs = {layout: tmp_path / layout for layout in ("sglang", "specforge")}
    for layout, out in outs.items():
        assert run("convert", source, out, "--to", layout).exit_code == 0
    for name in ("config.json", "model.safetensors"):
        assert (outs["sglang"] / name).read_bytes() == (outs["specforge"] / name).read_bytes()


def test_a_folder_that_cannot_be_made_is_told(run: Command, head: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "out", Path("/proc/none/out")):
        result = run("convert", head, out, "--to", "official")
        assert result.exit_code == 2 and "no folder can be made at" in result.stderr


def test_a_head_is_not_saved_beside_other_weights(deep: Any, tmp_path: Path) -> None:
    from specdec.errors import CheckpointError
    from specdec_plugins.eagle.saving import save_head

    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, which some tools would read"):
        save_head(head_for(deep[0]), tmp_path)


def test_the_official_layout_is_chosen_where_the_layers_are_the_usual_of_the_target(
    deep: Any, tmp_path: Path
) -> None:
    from specdec_plugins.eagle.saving import save_head

    head = head_for(deep[0])
    for layers, layout in (
        (LAYERS, "official"),
        (LAYERS + 2, "speculators"),
        (None, "speculators"),
    ):
        assert save_head(head, tmp_path / str(layers), target_layers=layers) == layout
    fields = json.loads((tmp_path / str(LAYERS) / "config.json").read_text())
    assert "eagle_config" not in fields


def test_mistakes_of_convert_are_told(run: Command, deep: Any, head: Path, tmp_path: Path) -> None:
    written = in_layout("speculators", head_for(deep[0]))
    del written.fields["norm_before_residual"]
    folder = written.save(tmp_path / "head")
    for arguments, says in (
        ([folder, tmp_path / "out", "--to", "official"], "does not say norm_before_residual"),
        ([folder, tmp_path / "out", "--to", "offical"], "did you mean 'official'?"),
        ([head, folder, "--to", "official"], "is there already"),
        ([head, tmp_path / "out", "--to", "specforge"], "has no EAGLE-1/2 heads: give official"),
        ([head, tmp_path / "out", "--to", "sglang", "--set", "target="], "--set target=''"),
    ):
        result = run("convert", *arguments)
        assert result.exit_code == 2 and says in result.stderr
    assert run("convert", head, tmp_path / "out", "--to", "official").exit_code == 0
    assert tensors(head).keys() == tensors(tmp_path / "out").keys()
