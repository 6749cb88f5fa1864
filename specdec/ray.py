"""Many prompts on many machines: an actor class for Ray Data's ``map_batches``.

import ray, specdec.ray

rows = ray.data.read_json("prompts/")
rows.map_batches(
    specdec.ray.Generator,
    fn_constructor_kwargs={"model": "org/model", "settings": {"max_new_tokens": 200}},
    batch_format="pyarrow",
    batch_size=256,
    compute=ray.data.ActorPoolStrategy(size=4),
    num_gpus=1,
).write_json("answers/")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from specdec.engine import ARGUMENTS, Engine
from specdec.errors import OptionError, UnknownNameError
from specdec.files.entry_log import without_address
from specdec.jobs.answering import Answer, Answerer, answers_in_order
from specdec.jobs.options import make_job_options
from specdec.jobs.rows import GivenRow
from specdec.models.fingerprints import fingerprint
from specdec.request.seeds import seed_of_row

_TYPES = {"text": "string", "finish_reason": "string", "prompt_tokens": "int64"}
_TYPES |= {"new_tokens": "int64", "token_ids": "list", "error": "string"}
_COUNTS = (
    "index", "seed", "max_length", "max_new_tokens", "min_length", "min_new_tokens", "top_k",
    "no_repeat_ngram_size", "eos_token_id",
)  # fmt: skip


class Generator:
    """Answers batches of rows with an engine of its own; Ray makes one for each actor.

    A batch has the columns of a job's rows: ``prompt`` or ``messages``, generation settings where
    rows have settings of their own, and what is named in ``keep``. It comes back with columns
    ``text``, ``finish_reason``, ``prompt_tokens``, ``new_tokens`` and ``error``, which is null for
    a row that was decoded. A value that is null, or NaN in an array of numbers, is not given.

    Nothing depends on which actor has a row, or on the rows beside it: an actor that is lost is
    replaced by Ray, and the rows are the same. A sampled row draws with its ``seed``; one without
    draws as the row of its column ``index`` in a file job with the same ``seed`` would, or, without
    an index, with a seed made of all that is in it, so that equal rows have equal texts.

    Example:
        >>> Generator("org/model", settings={"max_new_tokens": 9})({"prompt": np.array(["Once"])})

    Args:
        model: as for ``Engine``.
        engine: other arguments of ``Engine`` by name, such as ``device_map`` for a model that is
            larger than one of the actor's devices.
        options: fields of :class:`~specdec.jobs.options.JobOptions`, but ``window``.

    Raises:
        SpecdecError: as for ``Engine``, or an option that is not allowed.
    """

    def __init__(
        self, model: Any = None, *, engine: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        if "window" in options:
            raise OptionError("window is for files: Ray's batch_size says how many rows there are")
        self._options = make_job_options(options)
        given = {} if engine is None else engine
        if not isinstance(given, Mapping):
            raise OptionError(
                f"engine must have arguments of Engine by name, {{'strategy': ...}}, not "
                f"{type(given).__name__} {given!r:.80}"
            )
        for name in given:
            if name not in ARGUMENTS:
                raise UnknownNameError("argument of Engine", name, ARGUMENTS)
        self.engine = Engine(model, **given)
        self._answerer = Answerer(self.engine, self._options)

    def __call__(self, batch: Any) -> Any:
        """The batch with its answers.

        Args:
            batch: a mapping from names to arrays, or a table of pyarrow.

        Returns:
            The same kind.

        Raises:
            OptionError: a batch of another kind.
        """
        table = not isinstance(batch, Mapping)
        if table and not hasattr(batch, "to_pylist"):
            raise OptionError(
                f"a batch is a mapping from names to arrays, or a table of pyarrow, not "
                f"{type(batch).__name__}: give map_batches batch_format='pyarrow' or 'numpy'"
            )
        rows = batch.to_pylist() if table else _rows_of(batch)
        rows = [_with_ints(_without_nulls(row)) for row in rows]
        seeds = [self._seed(row) for row in rows]
        for row in rows:
            row.pop("index", None)
        given = [GivenRow(*each) for each in zip(range(len(rows)), rows, seeds, strict=True)]
        columns = self._columns(answers_in_order(self._answerer, given))
        return _added(batch, columns) if table else {**batch, **_arrays(columns)}

    def _seed(self, row: Mapping[str, Any]) -> int:
        if type(index := row.get("index")) is int:
            return seed_of_row(self._options.seed, index)
        own = json.dumps(_canonical(row), sort_keys=True, default=without_address)
        return int(fingerprint([self._options.seed, own]), 16) % (1 << 63)

    def _columns(self, answers: list[Answer]) -> dict[str, list[Any]]:
        names = [name for name in _TYPES if name != "token_ids"]
        if self._options.token_ids or self.engine.tokenizer is None:
            names.append("token_ids")
        return {name: [_told(answer.get(name)) for answer in answers] for name in names}


def _told(value: Any) -> Any:
    """An error as text, anything else as it is."""
    return f"{value['type']}: {value['message']}" if isinstance(value, Mapping) else value


def _rows_of(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = {name: _values(column) for name, column in batch.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: Any) -> list[Any]:
    """The values of a column, without NaN, which is how numpy says null."""
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [None if isinstance(value, float) and value != value else value for value in values]


def _with_ints(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose counts are ints: numpy has floats in a column where some row has none."""
    return {name: _whole(value) if name in _COUNTS else value for name, value in row.items()}


def _canonical(value: Any) -> Any:
    """Equal for equal values: whether a number is an int or a float depends on its column."""
    if isinstance(value, Mapping):
        return {name: _canonical(each) for name, each in value.items()}
    return [_canonical(each) for each in value] if isinstance(value, list) else _whole(value)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_nulls(value: Any) -> Any:
    """Without what a table has for fields that a row, or a message, does not have."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _arrays(columns: Mapping[str, list[Any]]) -> dict[str, Any]:
    found = {}
    for name, values in columns.items():
        found[name] = np.empty(len(values), dtype=object)
        found[name][:] = values
    return found


def _added(table: Any, columns: Mapping[str, list[Any]]) -> Any:
    """A table with more columns, of types that do not depend on the batch."""
    import pyarrow as pa

    for name, values in columns.items():
        kind = pa.list_(pa.int64()) if name == "token_ids" else pa.type_for_alias(_TYPES[name])
        column = pa.array(values, type=kind)
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, column)
    return table
