"""Local GGUF files as models: read as transformers does, kept converted, refused with a reason."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from specdec import Engine
from specdec.errors import CheckpointError
from specdec.models import checkpoints
from specdec.models.checkpoints import load_model, load_tokenizer
from specdec.models.conversions import cache_folder, contents, keep, kept

pytest.importorskip("gguf")
pytest.importorskip("accelerate")
import tiny_gguf

GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 12}
PROMPT = "The\n\n1. x"


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_gguf.make_model()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test's own."""
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def file(model: Any, tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "tiny.gguf", model)


def plain(file: str | Path, **arguments: Any) -> Engine:
    return Engine(file, strategy="plain", **arguments)


def save_small(folder: Path, *, weights: bytes = b"weights") -> None:
    """What a conversion consists of at least."""
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)


def without_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if gguf and accelerate were not installed."""
    for name in ("gguf", "accelerate"):
        monkeypatch.setitem(sys.modules, name, None)


def test_a_file_is_the_model_that_was_written_into_it(model: Any, file: Path) -> None:
    engine = plain(file)
    prompt = engine.tokenizer(PROMPT)["input_ids"]
    own = Engine(model, strategy="plain", tokenizer=engine.tokenizer)
    assert tiny.tokens(engine, prompt, **GREEDY) == tiny.tokens(own, prompt, **GREEDY)
    weights = engine.target.model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert engine.model_name == str(file)
    assert engine.tokenizer.decode(prompt) == PROMPT
    assert engine.tokenizer.chat_template == tiny_gguf.TEMPLATE


def test_text_is_split_at_digits_as_the_vocabulary_was_made(file: Path) -> None:
    tokenizer = load_tokenizer(file)
    assert tokenizer is not None
    assert tokenizer.tokenize("a\n\n12") == ["a", tiny_gguf.NEWLINE * 2, "1", "2"]
    load_model(file, dtype="auto", device="cpu")
    again = load_tokenizer(file)
    assert again is not None
    assert again.tokenize("a\n\n12") == ["a", tiny_gguf.NEWLINE * 2, "1", "2"]


def test_the_end_of_a_turn_ends_the_text_as_well_as_eos(file: Path) -> None:
    assert plain(file).generation_config.eos_token_id == [tiny_gguf.EOS, tiny_gguf.EOT]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("F32", torch.float32),
        ("Q8_0", torch.float32),
        ("Q4_1", torch.float32),
        ("F16", torch.float16),
        ("BF16", torch.bfloat16),
    ],
)
def test_a_conversion_loses_nothing_and_is_no_wider_than_that_takes(
    model: Any, tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    import transformers as hf

    file = tiny_gguf.write(tmp_path / "tiny.gguf", model, kind=kind)
    for _ in range(2):  # converted, then kept
        own = load_model(file, dtype="auto", device="cpu")
        assert own.dtype == dtype
        direct = hf.AutoModelForCausalLM.from_pretrained(
            tmp_path, gguf_file=file.name, dtype=torch.float32
        )
        weights = own.state_dict()
        for key, value in direct.state_dict().items():
            assert torch.equal(weights[key].float(), value), key
    wide = load_model(file, dtype=torch.float64, device="cpu")
    assert wide.dtype == torch.float64
    ids = torch.tensor([[5, 9, 1, 7]])
    assert torch.allclose(wide(ids).logits.float(), direct(ids).logits, atol=1e-4)


def test_the_second_start_reads_what_the_first_one_kept(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plain(file).generate(PROMPT, **GREEDY).text
    (folder,) = cache.iterdir()
    assert {"config.json", "generation_config.json", "model.safetensors"} < set(os.listdir(folder))
    without_reader(monkeypatch)  # what is kept needs neither package
    copy = Path(shutil.copy(file, file.with_name("another-name.gguf")))
    for each in (file, copy):
        assert plain(each).generate(PROMPT, **GREEDY).text == first
    assert list(cache.iterdir()) == [folder]


def test_what_lies_beside_the_file_is_not_read(model: Any, file: Path, tmp_path: Path) -> None:
    wanted = load_tokenizer(file)
    (beside := tmp_path / "beside").mkdir()
    foreign = tiny.make_tokenizer()
    foreign.save_pretrained(beside)
    (beside / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    (beside / "generation_config.json").write_text('{"eos_token_id": 1}')
    (beside / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "code.Model"}}')
    moved = file.rename(beside / file.name)
    for _ in range(2):  # the tokenizer alone, then the one that is kept
        tokenizer = load_tokenizer(moved)
        assert tokenizer is not None and wanted is not None
        assert tokenizer.get_vocab() == wanted.get_vocab()
        assert tokenizer.chat_template == tiny_gguf.TEMPLATE
        own = load_model(moved, dtype="auto", device="cpu")
        assert own.generation_config.eos_token_id == [tiny_gguf.EOS, tiny_gguf.EOT]
        assert torch.equal(own.lm_head.weight, model.lm_head.weight)


def refuse(*_: Any, **__: Any) -> None:
    raise OSError("not allowed here")


@pytest.mark.parametrize("refused", [["symlink_to"], ["symlink_to", "hardlink_to"]])
def test_without_links_what_lies_beside_is_not_read_either(
    model: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: list[str]
) -> None:
    for name in refused:
        monkeypatch.setattr(Path, name, refuse)
    test_what_lies_beside_the_file_is_not_read(model, file, tmp_path)


def test_without_links_and_room_for_a_copy_a_file_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("symlink_to", "hardlink_to"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(shutil, "copyfile", refuse)
    for load in (plain, load_tokenizer):
        with pytest.raises(CheckpointError, match=r"tiny\.gguf takes a temporary folder .*not all"):
            load(file)


def test_without_a_temporary_folder_a_file_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(file.parent / "nowhere"))
    with pytest.raises(CheckpointError, match=r"temporary folder .* TMPDIR names another place"):
        load_tokenizer(file)


def test_another_content_under_the_same_name_is_converted_anew(file: Path, cache: Path) -> None:
    before = load_model(file, dtype="auto", device="cpu")
    tiny_gguf.write(file, tiny.noisy_copy(tiny_gguf.make_model()))
    after = load_model(file, dtype="auto", device="cpu")
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)
    assert len(list(cache.iterdir())) == 2


def test_a_file_replaced_while_it_is_converted_is_not_kept_as_the_new_one(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tiny_gguf.write(file.with_name("new.gguf"), tiny.noisy_copy(tiny_gguf.make_model()))
    wanted = load_model(new, dtype="auto", device="cpu").lm_head.weight
    shutil.rmtree(cache)
    convert = checkpoints.convert

    def convert_slowly(path: Path) -> Any:
        converted = convert(path)
        os.replace(new, path)
        return converted

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "convert", convert_slowly)
        with pytest.warns(UserWarning, match=r"tiny\.gguf changed while it was converted"):
            old = load_model(file, dtype="auto", device="cpu")
    assert not torch.equal(old.lm_head.weight, wanted)
    assert kept(file) is None
    assert torch.equal(load_model(file, dtype="auto", device="cpu").lm_head.weight, wanted)


@pytest.mark.parametrize("change", ["content", "inode", "gone"])
def test_a_file_that_is_not_the_converted_one_is_not_kept(
    file: Path, cache: Path, change: str
) -> None:
    before, found = contents(file), file.stat()
    if change == "content":
        file.write_bytes(bytes(found.st_size))
    elif change == "inode":
        os.replace(shutil.copy2(file, file.with_name("copy")), file)
        assert file.stat().st_mtime_ns == found.st_mtime_ns
    else:
        file.unlink()
    with pytest.warns(UserWarning, match="changed while it was converted"):
        assert keep(file, before, save_small) is None
    assert not cache.exists()


@pytest.mark.parametrize("end", ["eos", "eot"])
@pytest.mark.parametrize("value", [2**32 - 1, -1, len(tiny_gguf.TOKENS), "end", [1, 2], True, 1.5])
def test_what_is_no_token_id_ends_no_text(
    model: Any, tmp_path: Path, end: str, value: object
) -> None:
    file = tiny_gguf.write(tmp_path / "tiny.gguf", model, **{end: value})
    other = tiny_gguf.EOS if end == "eot" else tiny_gguf.EOT
    try:
        own = load_model(file, dtype="auto", device="cpu")
    except CheckpointError as error:  # the eos of the tokenizer is transformers' to read
        assert end == "eos"
        assert str(file) in str(error)
    else:
        assert own.generation_config.eos_token_id == other
        assert own.config.eos_token_id == other


def test_without_the_packages_the_command_that_helps_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_reader(monkeypatch)
    with pytest.raises(CheckpointError, match="gguf and accelerate: pip install gguf accelerate"):
        plain(file)


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_token(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plain(file, dtype="float64").generate(PROMPT, **GREEDY)
    (tmp_path / "blocked").write_text("a file where a folder would have to be")
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "blocked"))
    with pytest.warns(UserWarning, match=r"cannot be kept .* SPECDEC_CACHE names another folder"):
        engine = plain(file, dtype="float64")
    assert engine.target.dtype == torch.float64
    result = engine.generate(PROMPT, **GREEDY)
    assert (result.text, result.token_ids) == (wanted.text, wanted.token_ids)
    assert engine.tokenizer.chat_template == tiny_gguf.TEMPLATE
    told = "laid out over devices from its conversion on disk"
    with pytest.warns(UserWarning, match="kept"), pytest.raises(CheckpointError, match=told):
        plain(file, device_map="auto")


@pytest.mark.parametrize("failure", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_conversion_that_is_broken_off_leaves_nothing(
    file: Path, cache: Path, failure: BaseException
) -> None:
    def save(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise failure

    expected = (
        pytest.warns(UserWarning, match="No space left")
        if isinstance(failure, OSError)
        else pytest.raises(KeyboardInterrupt)
    )
    with expected:
        assert keep(file, contents(file), save) is None
    assert kept(file) is None
    assert list(cache.iterdir()) == []


def test_two_processes_that_convert_at_once_both_have_the_whole_one(
    file: Path, cache: Path
) -> None:
    def save_late(folder: Path) -> None:
        save_small(folder)
        other = keep(file, contents(file), save_small)  # the other process is done first
        assert other == kept(file)

    assert keep(file, contents(file), save_late) == kept(file) is not None
    assert len(list(cache.iterdir())) == 1


def test_a_damaged_conversion_is_made_again(file: Path, cache: Path) -> None:
    wanted = plain(file).generate(PROMPT, **GREEDY).text
    (folder,) = cache.iterdir()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damage in (lambda: weights.write_bytes(whole[:1000]), (folder / "config.json").unlink):
        damage()
        assert kept(file) is None
        assert plain(file).generate(PROMPT, **GREEDY).text == wanted
        assert weights.read_bytes() == whole
        assert kept(file) == folder
    assert list(cache.iterdir()) == [folder]


@pytest.mark.parametrize(
    "manifest",
    [
        '{"files": {}}',
        '{"files": {"config.json": 2}}',
        '{"files": {"model.safetensors": 7}}',
        '{"files": []}',
        "[]",
        "{",
        "[" * 100_000,
    ],
)
def test_a_manifest_that_names_no_model_is_a_damaged_conversion(file: Path, manifest: str) -> None:
    folder = keep(file, contents(file), save_small)
    assert folder is not None and kept(file) == folder
    (folder / "conversion.json").write_text(manifest)
    assert kept(file) is None
    assert keep(file, contents(file), save_small) == folder == kept(file)


def test_what_is_no_model_is_not_kept(file: Path, cache: Path) -> None:
    with pytest.warns(UserWarning, match=r"cannot be kept .*no whole model"):
        assert keep(file, contents(file), lambda _: None) is None
    assert list(cache.iterdir()) == []


def test_a_cache_in_no_ones_home_costs_a_warning(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECDEC_CACHE", "~no-such-user/x")
    with pytest.warns(UserWarning, match=r"cannot be kept .* SPECDEC_CACHE names another folder"):
        load_model(file, dtype="auto", device="cpu")
    assert load_tokenizer(file) is not None


def test_two_processes_that_repair_at_once_keep_what_the_first_has_made(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = keep(file, contents(file), save_small)
    assert folder is not None
    (folder / "config.json").unlink()
    rename: Callable[[Path, Any], Path] = Path.rename
    made = []

    def rename_late(path: Path, target: Any) -> Path:
        if path == folder and not made:  # the other process repairs it before this one moves it
            made.append(folder)
            keep(file, contents(file), lambda new: save_small(new, weights=b"first"))
            made.append(folder.stat().st_ino)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    assert keep(file, contents(file), save_small) == folder == kept(file)
    assert (folder / "model.safetensors").read_bytes() == b"first"
    assert folder.stat().st_ino == made[1]
    assert list(cache.iterdir()) == [folder]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners here")
def test_conversions_are_this_users_alone(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = keep(file, contents(file), save_small)
    assert folder is not None
    for each in (folder, cache, cache.parent):
        assert each.stat().st_mode & 0o777 == 0o700
    another = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: another)
    assert kept(file) is None
    with pytest.warns(UserWarning, match=r"cannot be kept .*belongs to another user"):
        assert keep(file, contents(file), save_small) is None
    assert list(cache.iterdir()) == [folder]


def test_no_code_of_a_conversion_runs_whatever_the_caller_trusts(
    file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    load_model(file, dtype="auto", device="cpu")
    (folder,) = cache.iterdir()
    ran = tmp_path / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')")
    manifest = json.loads((folder / "conversion.json").read_text())
    for name, kinds in (
        ("config.json", {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["code.T", "code.T"]}),
    ):
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(found | {"auto_map": kinds}))
        manifest["files"][name] = (folder / name).stat().st_size
    (folder / "conversion.json").write_text(json.dumps(manifest))
    assert kept(file) == folder
    load_model(file, dtype="auto", device="cpu", trust_remote_code=True)
    assert not ran.exists()
    assert load_tokenizer(file, trust_remote_code=True) is not None
    assert not ran.exists()


def test_what_killed_processes_have_left_is_cleared_after_a_while(file: Path, cache: Path) -> None:
    for name, age in (("old", 7200), ("young", 10)):
        (left := cache / f".unfinished-{name}").mkdir(parents=True)
        os.utime(left, (time.time() - age,) * 2)
    keep(file, contents(file), save_small)
    assert not (cache / ".unfinished-old").exists()
    assert (cache / ".unfinished-young").exists()


def test_the_cache_lies_among_hugging_faces_assets_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("SPECDEC_CACHE")
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", "/somewhere/assets")
    assert cache_folder() == Path("/somewhere/assets/specdec/gguf")


def test_corrupt_and_missing_files_are_told(file: Path, tmp_path: Path, model: Any) -> None:
    whole = file.read_bytes()
    bad = tmp_path / "bad.gguf"
    for content, says in (
        (whole[: len(whole) - 4000], "corrupt or cut short"),
        (whole[:300], "corrupt or cut short"),
        (b"", "no GGUF file"),
        (b"PK\x03\x04", "no GGUF file"),
        (b"GGUF" + bytes(3000), "corrupt or cut short"),
    ):
        bad.write_bytes(content)
        for load in (plain, load_tokenizer):
            with pytest.raises(CheckpointError, match=says) as error:
                load(bad)
            assert str(bad) in str(error.value)
    with pytest.raises(CheckpointError, match="there is no file"):
        plain(tmp_path / "nowhere.gguf")


def test_what_transformers_cannot_read_is_told(model: Any, tmp_path: Path) -> None:
    strange = tiny_gguf.write(tmp_path / "a.gguf", model, architecture="no-such-architecture")
    with pytest.raises(CheckpointError, match="no-such-architecture"):
        plain(strange)
    lacking = tiny_gguf.write(tmp_path / "b.gguf", model, without="blk.1.attn_q.weight")
    with pytest.raises(CheckpointError, match=r"lacks weights .*layers\.1\.self_attn\.q_proj"):
        plain(lacking)
    part = lacking.rename(tmp_path / "b-00001-of-00002.gguf")
    with pytest.raises(CheckpointError, match=r"one part of several.*llama-gguf-split --merge"):
        plain(part)


def test_a_folder_that_holds_only_a_file_names_it(file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"GGUF files \(tiny\.gguf\): give one, such"):
        plain(file.parent)


def test_a_file_without_a_tokenizer_decodes_token_ids(model: Any, tmp_path: Path) -> None:
    bare = tiny_gguf.write(tmp_path / "bare.gguf", model, tokenizer=False)
    assert load_tokenizer(bare) is None
    engine = plain(bare)
    assert engine.tokenizer is None
    own = Engine(model, strategy="plain")
    prompt = [5, 9, 1, 7]
    assert tiny.tokens(engine, prompt, **GREEDY) == tiny.tokens(own, prompt, **GREEDY)


def test_a_file_drafts_for_a_model_of_its_tokenizer_but_is_no_head(
    model: Any, file: Path, tmp_path: Path
) -> None:
    draft = tiny_gguf.write(tmp_path / "draft.gguf", tiny.noisy_copy(model, amount=0.1), kind="F16")
    engine = plain(file)
    drafting = engine.with_strategy("draft_model", drafter=draft, acceptor="match")
    wanted = engine.generate(PROMPT, **GREEDY)
    result = drafting.generate(PROMPT, **GREEDY)
    assert result.token_ids == wanted.token_ids
    assert result.stats.tau > 1
    with pytest.raises(CheckpointError, match="is a file: give the folder of the EAGLE head"):
        engine.with_strategy("eagle2", drafter=draft)


def test_an_engine_on_a_file_is_pickled_with_its_absolute_path(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = plain(file.name)
    wanted = engine.generate(PROMPT, **GREEDY).text
    pickled = pickle.dumps(engine)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickled).generate(PROMPT, **GREEDY).text == wanted  # noqa: S301


def test_what_is_kept_is_an_ordinary_checkpoint(file: Path, cache: Path) -> None:
    import transformers as hf

    wanted = tiny.tokens(plain(file), [5, 9, 1], **GREEDY)
    (folder,) = cache.iterdir()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    found = hf.AutoModelForCausalLM.from_pretrained(folder)
    assert tiny.greedy_reference(found, [5, 9, 1], 12) == wanted
