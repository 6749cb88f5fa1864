"""A tape that behaves as a CUDA graph does, on any device: what replays on it can be captured.

Python does not run again, addresses stay what they were, and numbers that the host knew are frozen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

T = TypeVar("T")

_READING_METHODS = (
    *("tolist", "item", "numpy", "cpu", "nonzero"),
    *("__bool__", "__int__", "__float__", "__index__", "__array__"),
)
_MAKING_FUNCTIONS = ("tensor", "as_tensor", "from_numpy")
_READING_OPERATORS = (
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"),
    *("unique_dim", "_unique2", "unique_consecutive", "bincount"),
)


class HostRead(RuntimeError):
    """A recorded function read the device, or brought data from the host."""


class DanglingRead(AssertionError):
    """A replay would read memory that has been given back since it was recorded."""


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operators of one call, with the very tensors that they read and wrote.

    Tensors from outside are not kept alive: a CUDA graph would not do so either.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[tuple[Any, list[Any], Any, list[Any]]] = []
        self._made: dict[int, Any] = {}  # kept, so that no other tensor gets their id
        self._own: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in _READING_OPERATORS or _by_mask(name, args):
            raise HostRead(_MESSAGE.format(name))
        if name == "lift_fresh":  # a number that is assigned to a part of a tensor
            constant = func(*args, **kwargs)
            self._made[id(constant)] = constant
            return constant
        with self:
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
        found = func(*args, **kwargs)
        given, made = tree_leaves((args, kwargs)), tree_leaves(found)
        outside = {_memory(x) for x in given if isinstance(x, Tensor)}
        fresh = [x for x in made if isinstance(x, Tensor) and _memory(x) not in outside]
        self._own.update(map(_memory, fresh))
        if func._schema.is_mutable or (fresh and not name.startswith("empty")):
            leaves, spec = tree_flatten((args, kwargs))
            self.operators.append((func, [self._held(x) for x in leaves], spec, made))
        self._made.update((id(x), x) for x in made)
        return found

    def replay(self) -> None:
        """Run every operator again and write what it gives to where it wrote before.

        Raises:
            DanglingRead: a tensor that was read is gone.
        """
        for func, leaves, spec, made in self.operators:
            args, kwargs = tree_unflatten([_resolved(x, func) for x in leaves], spec)
            found = tree_leaves(func(*args, **kwargs))
            if not func._schema.is_mutable:
                for old, new in zip(made, found, strict=True):
                    if isinstance(old, Tensor):
                        old.untyped_storage().copy_(new.untyped_storage())

    def spoil(self, result: Any) -> None:
        """Write over what is its own in a result, as a graph of the same pool of memory may."""
        for tensor in _tensors(result):
            if _memory(tensor) in self._own:
                whole = torch.empty(0, dtype=torch.uint8, device=tensor.device)
                whole.set_(tensor.untyped_storage()).fill_(0x7F)

    def _held(self, leaf: Any) -> Any:
        inside = id(leaf) in self._made or not isinstance(leaf, Tensor)
        return leaf if inside else weakref.ref(leaf)


class _Pooled:
    """A tape whose replays spoil the results of those recorded after it, as in a shared pool."""

    def __init__(self, recorder: TapeRecorder, tape: Tape, place: int) -> None:
        self.tape, self._recorder, self._place = tape, recorder, place

    def replay(self) -> None:
        """Run the tape."""
        self.tape.replay()
        for tape, result in self._recorder.taped[self._place + 1 :]:
            tape.spoil(result)


class TapeRecorder:
    """Records on tapes that share a pool of memory.

    Attributes:
        taped: tapes and what they gave.
    """

    def __init__(self) -> None:
        self.taped: list[tuple[Tape, Any]] = []

    def apart(self) -> TapeRecorder:
        """One with a pool of its own."""
        return TapeRecorder()

    def record(self, function: Callable[[], T]) -> tuple[_Pooled, T]:
        """Run ``function`` twice, as with CUDA graphs, the second time on a tape.

        Raises:
            HostRead: it asked for a value of a tensor, or made a tensor of the host's data.
        """
        function()
        tape = Tape()
        with _no_host_reads(), tape:
            result = function()
        self.taped.append((tape, result))
        return _Pooled(self, tape, len(self.taped) - 1), result

    def address(self, tensor: Tensor) -> Hashable:
        """The tensor itself, as long as it lives."""
        return weakref.ref(tensor)


_MESSAGE = "{} waits for the device, which a recorded function cannot"


def _resolved(leaf: Any, func: Any) -> Any:
    if not isinstance(leaf, weakref.ref):
        return leaf
    tensor = leaf()
    if tensor is None:
        raise DanglingRead(f"{func} reads a tensor that nothing keeps alive")
    return tensor


def _tensors(value: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """All tensors within lists, tuples, dictionaries and attributes."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
        return
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (list, tuple, dict)):
        inner = vars(value).values() if hasattr(value, "__dict__") else ()
    for each in inner:
        yield from _tensors(each, seen)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _by_mask(name: str, args: Any) -> bool:
    """Indexing by booleans has a size that only the device knows."""
    if name not in ("index", "index_put", "index_put_"):
        return False
    return any(isinstance(x, Tensor) and x.dtype == torch.bool for x in args[1])


@contextmanager
def _no_host_reads() -> Iterator[None]:
    """Within, what gives the host a value or the device the host's data raises; some of it never
    reaches the dispatcher."""

    def refusing(name: str) -> Any:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise HostRead(_MESSAGE.format(name))

        return refuse

    with ExitStack() as stack:
        for owner, names in ((Tensor, _READING_METHODS), (torch, _MAKING_FUNCTIONS)):
            for name in names:
                stack.enter_context(mock.patch.object(owner, name, refusing(name)))
        yield
