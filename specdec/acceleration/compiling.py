"""Compiled networks: ``torch.compile`` for frequent shapes, the network as it is for the rest."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from specdec.acceleration.agreement import relative_error, tolerance
from specdec.acceleration.view import CacheView
from specdec.errors import OptionError
from specdec.kv_cache.keyword import cache_keyword
from specdec.kv_cache.kv_cache import KVCache

INDUCTOR = "inductor"
Backend = str | Callable[..., Any]
# Compiled code runs in one thread at a time: a shape's view follows one cache, and the results of
# all CUDA graphs lie in one pool of memory. No attribute: networks are copied.
_RUNNING = threading.RLock()


def check_compilable(module: nn.Module) -> None:
    """Refuse devices that compiled networks have not been made for.

    Raises:
        OptionError: neither the CPU nor a CUDA GPU.
    """
    devices = {tensor.device for tensor in module.parameters()}
    if wrong := [str(device) for device in devices if device.type not in ("cpu", "cuda")]:
        raise OptionError(
            f"compile=True: a network on {', '.join(sorted(wrong))} cannot be compiled, only one "
            "on the CPU or a CUDA GPU; leave out compile"
        )
    if len(devices) > 1:
        raise OptionError(
            f"compile=True: the network lies on several devices ({', '.join(map(str, devices))}); "
            "put it on one, or leave out compile"
        )


class CompiledNetwork(nn.Module):
    """A network that compiles a function of its own for every shape that comes up often.

    A shape is the sizes of all inputs and of the cache. Its first compiled result, or the first of
    a replayed CUDA graph, is compared with the network's own. If compiling fails, or the two differ
    by more than rounding, it warns, once, and runs the network as it is from then on.

    Args:
        network: called with tensors, flags and, by name, a ``cache``.
        backend: of ``torch.compile``.
        compile_after: calls with a shape before it is compiled.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        backend: Backend = INDUCTOR,
        compile_after: int = 8,
    ) -> None:
        super().__init__()
        self.network = network
        self._backend, self._compile_after = backend, compile_after
        self._asked: Counter[Any] = Counter()
        self._compiled: dict[Any, _Shape] = {}
        self.failure: str | None = None

    @property
    def compiled_shapes(self) -> int:
        """How many shapes have been compiled."""
        return len(self._compiled)

    def forward(self, *inputs: Any, cache: KVCache | None = None, **named: Any) -> Any:
        """What the network gives for the same arguments, up to rounding."""
        known = cache is None or isinstance(cache, KVCache)
        if known and self.failure is None and not torch.is_grad_enabled():
            inputs, named = tree_map_only(Tensor, Tensor.contiguous, (inputs, named))
            key = (_call_key((inputs, named)), cache and cache.geometry)
            with _RUNNING:
                shape = self._compiled.get(key)
                if shape and shape.runs_here:
                    found = self._attempt(lambda: shape.run(inputs, named, cache))
                    if self.failure is None:
                        return found
                elif not shape:
                    self._asked[key] += 1
                    if self._asked[key] >= self._compile_after and self.failure is None:
                        return self._compile(key, inputs, named, cache)
        return self._eager(inputs, named, cache)

    def _eager(self, inputs: Any, named: Any, cache: KVCache | None) -> Any:
        if cache is not None:
            named = {**named, cache_keyword(type(self.network)): cache}
        return self.network(*inputs, **named)

    def _compile(self, key: Any, inputs: Any, named: Any, cache: KVCache | None) -> Any:
        """Compile for this shape; its result is the network's own."""
        shape = _Shape(self.network, cache, self._backend)
        # The same slots are written again, with the same keys and values.
        for _ in range(shape.runs_to_compare):
            ours = self._attempt(lambda: shape.run(inputs, named, cache))
            if self.failure is not None:
                break
        reference = self._eager(inputs, named, cache)
        if self.failure is None:
            error = max(map(relative_error, _tensors(ours), _tensors(reference)), default=0.0)
            if error <= tolerance(_tensors(reference)[0].dtype):
                self._compiled[key] = shape
            else:
                self._give_up(f"its results differ from the network's own by {error:.1e}")
        return reference

    def _attempt(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except Exception as error:  # compilers fail with whatever their parts fail with
            cause = getattr(error, "inner_exception", error)
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            first = str(cause).strip().partition("\n")[0]
            self._give_up(f"{type(cause).__name__}: {first}")
            return None

    def _give_up(self, reason: str) -> None:
        self.failure = reason
        self._compiled.clear()
        warnings.warn(
            f"{type(self.network).__name__} runs uncompiled, since compiling it failed: {reason}",
            stacklevel=2,
        )


class _Shape:
    """The network compiled for one shape.

    What varies from call to call are tensors alone: those of the cache are seen through a
    :class:`CacheView` that belongs to the shape, so that another cache of the same sizes does not
    compile again.
    """

    def __init__(self, network: nn.Module, cache: KVCache | None, backend: Backend) -> None:
        self._view = CacheView(cache) if cache is not None else None
        given = {} if self._view is None else {cache_keyword(type(network)): self._view}

        def call(inputs: Any, named: Any) -> Any:
            return network(*inputs, **named, **given)

        self._graphs, self._thread = uses_graphs(network), threading.get_ident()
        how: dict[str, Any] = {"backend": backend}
        if backend == INDUCTOR:
            how |= {"mode": "reduce-overhead"} if self._graphs else {"options": {"freezing": True}}
        # torch counts compilations by code object and refuses after a few: one for each shape.
        own = FunctionType(
            call.__code__.replace(co_name="shape"), globals(), closure=call.__closure__
        )
        self._run = torch.compile(own, fullgraph=True, dynamic=False, **how)

    @property
    def runs_here(self) -> bool:
        """Whether this thread may run it: CUDA graphs belong to the thread that recorded them, and
        another one would record its own, which nobody compares."""
        return not self._graphs or self._thread == threading.get_ident()

    @property
    def runs_to_compare(self) -> int:
        """Runs up to one like all later ones: with CUDA graphs the first warms up, the second
        records, the third replays."""
        return 3 if self._graphs else 1

    def run(self, inputs: Any, named: Any, cache: KVCache | None) -> Any:
        if self._view is not None and cache is not None:
            self._view.follow(cache, fixed=self._graphs)
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            found = self._run(inputs, named)
        finally:
            if self._view is not None:
                self._view.release()
        # A CUDA graph's results lie where its next run will write.
        return tree_map_only(Tensor, Tensor.clone, found) if self._graphs else found


def uses_graphs(network: nn.Module) -> bool:
    """Whether a network is compiled into CUDA graphs."""
    return any(tensor.is_cuda for tensor in network.parameters())


def _call_key(inputs: Any) -> tuple[Any, ...]:
    """What has to be equal for compiled code to be run again."""
    inputs, named = inputs
    return (*map(_shape_key, inputs), *((name, _shape_key(value)) for name, value in named.items()))


def _shape_key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, dict):
        return tuple((name, _shape_key(each)) for name, each in value.items())
    return value


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
