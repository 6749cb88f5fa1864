"""Ray Data: each actor has an engine, and the rows do not depend on which one had them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from specdec import Engine
from specdec.errors import OptionError, SpecdecError
from specdec.jobs import answer_rows
from specdec.ray import Generator

SETTINGS = {"max_new_tokens": 8, "eos_token_id": tiny.EOS}
ROWS: list[dict[str, Any]] = [
    {"index": place, "prompt": "HELLO"[: 1 + place % 5], "temperature": float(place % 3 > 0)}
    for place in range(24)
]
ROWS[5]["max_new_tokens"] = 3
ROWS[7]["seed"] = 11
ROWS[9]["prompt"] = ""


@pytest.fixture(scope="module")
def folder(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny target with its tokenizer."""
    path = tiny.save_model(model, tmp_path_factory.mktemp("target"))
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    return Generator(folder, engine={"strategy": "plain"}, settings=SETTINGS, seed=3)


@pytest.fixture(scope="module")
def wanted(plain: Engine) -> list[Any]:
    """The texts of a job on the same rows; None for the bad one."""
    rows = [{name: row[name] for name in row if name != "index"} for row in ROWS]
    return [answer.get("text") for answer in answer_rows(plain, rows, settings=SETTINGS, seed=3)]


def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """As Ray hands them over: a number that a row does not have is NaN."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


def test_arrays_are_answered_as_a_job_answers_rows(generator: Generator, wanted: list[Any]) -> None:
    batch = columns(ROWS)
    assert batch["max_new_tokens"].dtype.kind == batch["seed"].dtype.kind == "f"
    found = generator(batch)
    assert found["text"].tolist() == wanted
    assert found["prompt"] is batch["prompt"] and found["new_tokens"][5] <= 3
    assert "the prompt is empty" in found["error"][9]
    assert [error is None for error in found["error"]] == [place != 9 for place in range(24)]


def test_the_rows_beside_a_row_do_not_change_it(generator: Generator, wanted: list[Any]) -> None:
    found = generator(columns(ROWS[::-2]))
    assert found["text"].tolist() == wanted[::-2]


@pytest.mark.parametrize("name", ["max_new_tokens", "temperature", "repetition_penalty"])
def test_a_number_means_the_same_beside_one_that_is_missing(
    generator: Generator, name: str
) -> None:
    row = {"prompt": "HELLO", "temperature": 1.0, name: 2.0}
    whole = generator(columns([row, row]))
    missing = generator(columns([row, {**row, name: np.nan}]))
    assert whole["error"][0] is None
    assert whole["text"][0] == missing["text"][0]


def test_a_batch_of_another_kind_is_refused(generator: Generator) -> None:
    with pytest.raises(OptionError, match="batch_format='pyarrow'"):
        generator(object())


def test_without_an_index_a_sample_is_a_function_of_the_row(generator: Generator) -> None:
    rows = [{"prompt": "HELLO", "temperature": 1.0, "id": place % 2} for place in range(4)]
    one, two, three, four = generator(columns(rows))["text"]
    assert (one, two) == (three, four) and one != two
    assert generator(columns(rows[1:]))["text"].tolist() == [two, three, four]


def test_where_an_object_lies_in_memory_does_not_change_a_sample(generator: Generator) -> None:
    rows = [{"prompt": "HELLO", "picture": object()} for _ in range(2)]
    assert generator._seed(rows[0]) == generator._seed(rows[1])


def test_a_table_comes_back_as_a_table(generator: Generator, wanted: list[Any]) -> None:
    pa = pytest.importorskip("pyarrow")
    chat = [{"role": "user", "content": "HI"}, {"role": "assistant", "content": "A", "name": "x"}]
    rows = [*ROWS, {"index": 99, "messages": chat}]
    found = generator(pa.Table.from_pylist([{**dict.fromkeys(names(rows)), **row} for row in rows]))
    assert found.column("text").to_pylist()[:-1] == wanted
    assert found.column("text").to_pylist()[-1] is not None
    kinds = {name: str(found.schema.field(name).type) for name in ("text", "error", "new_tokens")}
    assert kinds == {"text": "string", "error": "string", "new_tokens": "int64"}
    only_good = generator(pa.Table.from_pylist(ROWS[:3]))
    assert str(only_good.schema.field("error").type) == "string"


def names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


@pytest.mark.parametrize(
    ("engine", "says"),
    [("lookup", "by name"), (3, "by name"), ({"stratgy": 1}, "did you mean 'strategy'")],
    ids=str,
)
def test_what_are_no_arguments_of_an_engine_is_told(folder: Path, engine: Any, says: str) -> None:
    with pytest.raises(SpecdecError, match=says):
        Generator(folder, engine=engine)


def test_a_window_is_for_files(folder: Path) -> None:
    with pytest.raises(OptionError, match="Ray's batch_size"):
        Generator(folder, window=9)


class Dying(Generator):
    """Kills its own process, once among all actors, at the row of some index."""

    def __init__(self, model: Any, marks: Path, **options: Any) -> None:
        super().__init__(model, **options)
        self.marks = marks
        (marks / f"actor-{os.getpid()}").touch()

    def __call__(self, batch: Any) -> Any:
        if 13 in batch.column("index").to_pylist():
            try:
                (self.marks / "killed").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    environment = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    here = str(Path(__file__).parent)
    environment["PYTHONPATH"] = os.pathsep.join([here, *environment.values()])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": environment},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.mark.parametrize("strategy", ["plain", "eagle2"])
def test_two_actors_one_of_them_killed_give_the_same_rows(
    ray: Any, folder: Path, head: Path, strategy: str, wanted: list[Any], tmp_path: Path
) -> None:
    rows = ray.data.from_items(ROWS, override_num_blocks=6)
    drafter = {"drafter": str(head)} if strategy == "eagle2" else {}
    options = {"engine": {"strategy": strategy, **drafter}, "settings": SETTINGS, "seed": 3}
    done = rows.map_batches(
        Dying,
        fn_constructor_args=(folder, tmp_path),
        fn_constructor_kwargs=options,
        batch_size=4,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=2),
    ).take_all()
    assert (tmp_path / "killed").exists()
    assert len(list(tmp_path.glob("actor-*"))) >= 3, "two actors, and one in the place of the dead"
    done.sort(key=lambda row: row["index"])
    assert [row["index"] for row in done] == list(range(len(ROWS)))
    assert [row["text"] for row in done] == wanted
