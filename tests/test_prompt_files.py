"""Prompt sets in files: what is written in any of the layouts is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdec import bench
from specdec.bench.prompt_files import MT_BENCH
from specdec.errors import OptionError

MT_BENCH_CATEGORIES = [
    "writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities",
]  # fmt: skip
# Some with what Python takes for the end of a line and JSON does not.
texts = (st.text(min_size=1) | st.text('a\u2028\x85"\n', min_size=1)).filter(str.strip)
conversations = st.lists(st.lists(texts, min_size=1, max_size=3), min_size=1, max_size=4)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples of a property write one after the other."""
    return tmp_path_factory.mktemp("prompts")


def write(file: Path, rows: list[dict[str, Any]], *, escaped: bool = True) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=escaped) for row in rows)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def turns_of(one: bench.PromptSet) -> list[list[str]]:
    later = one.later or ((),) * len(one.texts)
    return [[first, *more] for first, more in zip(one.texts, later, strict=True)]


@given(sets=st.lists(conversations, min_size=1, max_size=3), escaped=st.booleans())
def test_a_folder_for_each_task_is_read_back(
    place: Path, sets: list[list[list[str]]], escaped: bool
) -> None:
    """EAGLE's layout: TASK/question.jsonl, whatever the rows call their category."""
    root = place / f"tasks{len(sets)}"
    for number, own in enumerate(sets):
        rows: list[dict[str, Any]] = [
            {"question_id": i, "category": "math", "turns": turns, "reference": ["x"]}
            for i, turns in enumerate(own)
        ]
        write(root / f"task{number}" / "question.jsonl", rows, escaped=escaped)
    write(root / "judge_prompts.jsonl", [{"name": "something else"}])
    found = bench.load_sets(root)
    assert [one.name for one in found] == [f"task{number}" for number in range(len(sets))]
    assert [turns_of(one) for one in found] == sets
    alone = bench.load_sets(root / "task0" / "question.jsonl")
    assert alone == bench.load_sets(root / "task0") == found[:1]


@given(
    sets=st.dictionaries(st.sampled_from(["qa", "rag", "translation"]), conversations, min_size=2),
    order=st.randoms(use_true_random=False),
)
def test_one_file_with_categories_is_read_back(
    place: Path, sets: dict[str, list[list[str]]], order: Any
) -> None:
    """Spec-Bench's layout: one file, in which MT-bench's eight categories are one task."""
    rows: list[dict[str, Any]] = [
        {"question_id": 81, "category": category, "turns": [category, "again"]}
        for category in MT_BENCH_CATEGORIES
    ]
    others = [{"category": name, "turns": each} for name, own in sets.items() for each in own]
    order.shuffle(others)
    write(place / "spec_bench" / "question.jsonl", [*rows, *others])
    found = {one.name: turns_of(one) for one in bench.load_sets(place / "spec_bench")}
    assert found.pop(MT_BENCH) == [[category, "again"] for category in MT_BENCH_CATEGORIES]
    assert found == {
        name: [row["turns"] for row in others if row["category"] == name] for name in sets
    }


@given(prompts=st.lists(texts, min_size=1, max_size=4))
def test_lines_with_a_prompt_are_read_back(place: Path, prompts: list[str]) -> None:
    file = place / "letters.jsonl"
    write(file, [{"prompt": each, "category": "left alone"} for each in prompts], escaped=False)
    assert bench.load_sets(file) == [bench.PromptSet("letters", tuple(prompts))]


def test_the_first_prompts_of_mt_bench_are_of_every_category(tmp_path: Path) -> None:
    rows = [{"category": c, "turns": [f"{c} {i}", c]} for c in MT_BENCH_CATEGORIES for i in (0, 1)]
    write(tmp_path / "mt_bench" / "question.jsonl", rows)
    (found,) = bench.load_sets(tmp_path)
    assert found.name == "mt_bench" and len(found.later) == len(rows)
    assert list(found.texts) == [f"{c} {i}" for i in (0, 1) for c in MT_BENCH_CATEGORIES]


def test_a_file_that_lacks_a_category_of_mt_bench_keeps_them_apart(tmp_path: Path) -> None:
    rows = [{"category": each, "turns": [each]} for each in MT_BENCH_CATEGORIES[:3]]
    write(tmp_path / "x.jsonl", [*rows, {"turns": ["none"]}])
    names = [one.name for one in bench.load_sets(tmp_path)]
    assert names == [*MT_BENCH_CATEGORIES[:3], "x"]


def test_two_sets_of_one_name_are_refused_by_their_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [{"category": each, "turns": [each]} for each in ("qa", name)]
        write(tmp_path / f"{name}.jsonl", rows)
    with pytest.raises(OptionError, match=r"a\.jsonl and .*b\.jsonl both have .* set 'qa'"):
        bench.load_sets(tmp_path)


def test_sets_are_read_from_a_folder_and_from_a_file(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"prompt": "{name}", "id": 1}}\n\n')
    both = [bench.PromptSet("a", ("a",)), bench.PromptSet("b", ("b",))]
    assert bench.load_sets(tmp_path) == both
    assert bench.load_sets(tmp_path / "a.jsonl") == both[:1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2: write"),
        ('{"turns": []}', "line 2: turns must be a list of texts"),
        ('{"turns": "x"}', "line 2: turns must be a list of texts"),
        ('{"turns": ["x", ""]}', "line 2: the prompt must be text, not ''"),
        ('{"turns": ["x"], "category": 3}', "line 2: the category must be text, not 3"),
        ('{"text": "x"}', "line 2: write"),
        ("[1]", "line 2: write"),
        ('{"prompt": "x", "prompt": "y"}', "line 2: of one object, 'prompt' is there twice"),
        ('{"prompt": 3}', "line 2: the prompt must be text, not 3"),
        ('{"prompt": " "}', "line 2: the prompt must be text"),
        ("[" * 100_000, "line 2: write"),
    ],
)
def test_a_line_without_a_prompt_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"prompt": "fine"}\n' + line)
    with pytest.raises(OptionError, match=message):
        bench.load_sets(file)
