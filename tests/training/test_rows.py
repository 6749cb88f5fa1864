"""Rows are read from every form that they come in, and refused with their place."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from specdec import SpecdecError
from specdec.training.rows import Row, read_rows, to_row

SAID = (
    {"role": "user", "content": "A"},
    {"role": "assistant", "content": "B"},
)
FORMS: list[Any] = [
    {"messages": list(SAID)},
    {"conversations": [{"from": "human", "value": "A"}, {"from": "gpt", "value": "B"}]},
    {"prompt": "A", "response": "B"},
    {"prompt": [SAID[0]], "response": "B"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "A"}]}, SAID[1]]},
]


@pytest.mark.parametrize("fields", FORMS)
def test_every_form_of_a_dialogue_is_the_same_row(fields: Any) -> None:
    assert to_row(fields, "here") == Row(messages=SAID)


def test_a_row_keeps_source_and_licence() -> None:
    row = to_row({"text": "A", "source": "me", "license": "MIT"}, "here", "file")
    assert (row.source, row.licence) == ("me", "MIT")
    assert to_row({"text": "A"}, "here", "file").source == "file"
    assert to_row({"prompt": "", "response": "A"}, "here") == Row(text="A")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".txt"])
def test_every_kind_of_file_is_read_zipped_or_not(
    tmp_path: Path, suffix: str, zipped: bool
) -> None:
    rows = [{"text": "A"}, {"text": "B"}]
    text = {
        ".jsonl": "\n\n".join(map(json.dumps, rows)),
        ".json": json.dumps({"data": rows}),
        ".txt": "A",
    }[suffix]
    path = tmp_path / f"rows{suffix}{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    wanted = ["A"] if suffix == ".txt" else ["A", "B"]
    assert [row.text for row in read_rows([path])] == wanted
    assert [row.text for row in read_rows([tmp_path])] == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"text": "A"}\n{"txt": "B"}', "line 2 of .*txt: it needs 'messages'"),
        ('{"text": "A"}\n[1]', "line 2 of .* is a list"),
        ('{"text": "A"}\n{"text": "B", "text": "C"}', "line 2 of .*'text' is there twice"),
        ('{"text": "A"}\n\n{"text"', "line 3 of .*rows.jsonl is no JSON: .* at column"),
        ('{"messages": []}', "line 1 .*empty list"),
        ('{"messages": [{"role": "user"}]}', "line 1 .*needs a role and a content"),
        ('{"messages": "A"}', "line 1 .*must be a list"),
        ('{"prompt_ids": [1], "answer_ids": ["B"]}', "line 1 .*lists of token ids"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(SpecdecError, match=says):
        list(read_rows([path]))


def test_a_name_twice_in_a_list_of_rows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "A"}, {"text": "B", "text": "C"}]')
    with pytest.raises(SpecdecError, match=r"rows\.json: of one object, 'text' is there twice"):
        list(read_rows([path]))


def test_lines_in_a_file_of_another_name_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"text": "A"}\n{"text": "B"}\n')
    with pytest.raises(SpecdecError, match=r"rows\.json is no JSON .*must end in \.jsonl"):
        list(read_rows([path]))


def test_a_prompt_may_have_no_response_and_an_empty_file_has_no_row(tmp_path: Path) -> None:
    assert to_row({"prompt": "A"}, "here") == Row(messages=SAID[:1])
    (tmp_path / "empty.txt").touch()
    assert list(read_rows([tmp_path])) == []


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    for source, says in (
        (tmp_path / "none.jsonl", "there is no file or folder"),
        (tmp_path / "rows.csv", "must end in"),
        (tmp_path, "has no file of data"),
        ("org/name", "pip install datasets"),
    ):
        with pytest.raises(SpecdecError, match=says):
            list(read_rows([source]))


LIBRARY = """
asked = []


def load_dataset(name, split, streaming):
    asked.append((name, split, streaming))
    if name == "org/broken":
        raise ConnectionError("the hub is away")
    rows = {
        "org/chats": [
            {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]},
            {"prompt": "A", "response": "B", "license": "MIT", "source": "me"},
        ],
        "org/other": [{"text": "A"}, {"question": "A"}],
    }
    return iter(rows[name])
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A library ``datasets`` that keeps what it is asked for."""
    (tmp_path / "datasets.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [each for each in sys.modules if each.partition(".")[0] == "datasets"]:
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module("datasets")
    sys.modules.pop("datasets")


def test_rows_of_a_data_set_are_streamed_from_the_split_that_is_named(library: Any) -> None:
    for source, split in (("org/chats", "train"), ("org/chats:test", "test")):
        rows = list(read_rows([source]))
        assert library.asked.pop() == ("org/chats", split, True)
        assert [row.messages for row in rows] == [SAID, SAID]
        assert [(row.source, row.licence) for row in rows] == [("org/chats", ""), ("me", "MIT")]
        assert rows[1].place == f"row 1 of {source}"


def test_what_a_data_set_does_not_give_is_named(library: Any) -> None:
    for source, says in (
        ("org/broken", "the data set 'org/broken' cannot be read: .*the hub is away"),
        ("org/other", "row 1 of org/other has question: it needs 'messages'"),
        ("org/none", "the data set 'org/none' cannot be read"),
    ):
        with pytest.raises(SpecdecError, match=says):
            list(read_rows([source]))
    assert len(library.asked) == 3
    for no_name in ("./org/chats", "org/chats/more", "chats.jsonl"):
        with pytest.raises(SpecdecError, match="there is no file or folder"):
            list(read_rows([no_name]))
    assert len(library.asked) == 3, "a path that is not there is no data set"


def test_a_broken_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "A"}' * 50)[:-9])
    with pytest.raises(SpecdecError, match=r"rows\.jsonl\.gz cannot be read"):
        list(read_rows([path]))
