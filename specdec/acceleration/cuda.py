"""Recordings that are CUDA graphs. Written, and not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory, so they must not run side by side.

    Args:
        device: the GPU.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    def record(self, function: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
        """Run ``function`` once on a stream of its own, so that libraries and compilers have set
        themselves up, and once to record it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            caller = torch.cuda.current_stream()
            self._stream.wait_stream(caller)
            with torch.cuda.stream(self._stream):
                function()
            caller.wait_stream(self._stream)
            with torch.cuda.stream(caller):  # a capture that breaks does not set it back
                return graph, self._capture(graph, function)

    def _capture(self, graph: torch.cuda.CUDAGraph, function: Callable[[], T]) -> T:
        try:
            with torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",  # another thread's work is its own affair
            ):
                return function()
        except Exception as error:  # to end a broken capture fails too: the first says why
            raise (error.__context__ or error) from None

    def apart(self) -> CudaRecorder:
        """One with a pool of its own: within a pool a graph may write where another one, captured
        later, has left its results."""
        return CudaRecorder(self._device)

    def address(self, tensor: Tensor) -> Hashable:
        """A graph knows memory by its address alone: another tensor there serves as well."""
        return tensor.data_ptr()
