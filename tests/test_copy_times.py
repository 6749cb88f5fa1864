"""Packed layers: the copy that the table calls faster runs, and both give the same."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from specdec import Engine
from specdec.acceleration import Acceleration
from specdec.acceleration.copy_times import WIDTHS, CopySeconds, CopyTimes, LinearShape
from specdec.acceleration.packing import PackedLinear, pack, why_not_packed

SIZE = 128
DTYPES = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(
            why_not_packed(torch.device("cpu"), dtype) is not None, reason="cannot be packed here"
        ),
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
]
seconds = st.floats(1e-6, 1.0)
tables = st.dictionaries(
    st.integers(1, 40), st.builds(CopySeconds, seconds, seconds), min_size=1, max_size=5
)


class Operators(TorchDispatchMode):
    """Names of the operators that run within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def runs_packed(layer: nn.Module, rows: int, dtype: torch.dtype) -> bool:
    """Whether the packed copy is used for an input of so many rows."""
    with Operators() as operators:
        layer(torch.ones(1, rows, SIZE, dtype=dtype))
    return any("_linear_pointwise" in name for name in operators.names)


def table(dtype: torch.dtype, known: dict[int, CopySeconds]) -> CopyTimes:
    return CopyTimes({LinearShape(SIZE, SIZE, dtype): known})


def interpolated(known: dict[int, CopySeconds], rows: int) -> CopySeconds:
    below = max((width for width in known if width <= rows), default=min(known))
    above = min((width for width in known if width >= rows), default=max(known))
    if below == above or rows < below or rows > above:
        return known[above if rows < below else below]
    part = (rows - below) / (above - below)
    return CopySeconds(
        *(a + part * (b - a) for a, b in zip(known[below], known[above], strict=True))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@given(known=tables)
@torch.inference_mode()
def test_the_copy_that_the_table_calls_faster_runs(
    dtype: torch.dtype, known: dict[int, CopySeconds]
) -> None:
    layer = pack(nn.Linear(SIZE, SIZE, dtype=dtype), table(dtype, known))
    for rows in {1, 2, 3, 5, 9, 17, 39, 61, *known}:
        wanted = interpolated(known, rows)
        if abs(wanted.as_it_is - wanted.packed) > 1e-9:
            assert runs_packed(layer, rows, dtype) == (wanted.packed < wanted.as_it_is), rows


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@given(known=tables)
@torch.inference_mode()
def test_whichever_copy_runs_the_outputs_are_the_layers(
    dtype: torch.dtype, bias: bool, known: dict[int, CopySeconds]
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(SIZE, SIZE, bias=bias, dtype=dtype)
    packed = pack(layer, table(dtype, known))
    for rows in (0, 1, 2, 3, 8, 9, 33, 61):
        x = torch.randn(1, rows, SIZE).to(dtype)
        wanted = linear(x, layer.weight, layer.bias)
        if dtype == torch.float32:
            torch.testing.assert_close(packed(x), wanted)
        else:
            assert torch.equal(packed(x), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_that_is_never_faster_packed_stays_as_it_is(dtype: torch.dtype) -> None:
    slower = {width: CopySeconds(as_it_is=1.0, packed=1.1) for width in WIDTHS}
    layer = nn.Linear(SIZE, SIZE, dtype=dtype)
    model = nn.Sequential(layer)
    for found in (pack(layer, table(dtype, slower)), pack(model, table(dtype, slower))):
        kept = found if isinstance(found, nn.Linear) else found[0]
        assert type(kept) is nn.Linear and kept.weight is layer.weight


@pytest.mark.parametrize("dtype", DTYPES)
def test_unknown_shapes_are_measured_and_known_ones_stay(dtype: torch.dtype) -> None:
    known = {1: CopySeconds(1.0, 2.0), 4: CopySeconds(2.0, 1.0)}
    times = table(dtype, known)
    shape, other = LinearShape(SIZE, SIZE, dtype), LinearShape(SIZE, 2 * SIZE, dtype)
    model = nn.Sequential(
        *(nn.Linear(SIZE, 2 * SIZE if i % 2 else SIZE, dtype=dtype) for i in range(4))
    )
    pack(model, times)
    first = times.known
    assert first[shape] == known
    assert first.keys() == {shape, other} and first[other].keys() <= set(WIDTHS)
    assert all(min(each) >= 0 for each in first[other].values())
    pack(model, times)
    assert times.known == first


def test_without_anything_to_compare_the_packed_copy_runs() -> None:
    shape = LinearShape(SIZE, SIZE, torch.float32)
    assert CopyTimes({shape: {}}).packed_is_faster(shape) == (True,)


@pytest.mark.parametrize("dtype", [DTYPES[0]])
def test_an_engine_chooses_once_for_all_its_strategies(dtype: torch.dtype) -> None:
    sizes = {"hidden_size": SIZE, "intermediate_size": 2 * SIZE}
    model = tiny.make_model(tiny.llama_config(**sizes)).to(dtype)
    engine = Engine(model, strategy="plain", pack=True)
    before = engine.acceleration.copy_times.known
    assert before
    other = engine.with_strategy("lookup")
    settings: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0, "eos_token_id": []}
    wanted = tiny.tokens(engine, tiny.PROMPTS[0], **settings)
    assert tiny.tokens(other, tiny.PROMPTS[0], **settings) == wanted
    assert other.acceleration.copy_times is engine.acceleration.copy_times
    assert other.acceleration.copy_times.known == before


def test_a_table_given_to_an_acceleration_decides() -> None:
    layer = nn.Linear(SIZE, SIZE)
    faster = table(torch.float32, {1: CopySeconds(as_it_is=2.0, packed=1.0)})
    slower = table(torch.float32, {1: CopySeconds(as_it_is=1.0, packed=2.0)})
    kinds = [
        type(Acceleration(pack=True, copy_times=times).network(layer)) for times in (faster, slower)
    ]
    assert kinds == [PackedLinear, nn.Linear]


def test_a_shape_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(KeyError):
        CopyTimes().seconds(LinearShape(SIZE, SIZE, torch.float32), 1)
