"""CUDA graphs on the CPU: operations are recorded, and repeated on the same memory.

As on a GPU, what the recorded code did on the host, such as reading a value, is not repeated: only its effect on the
arguments of operations remains.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qwen3vl.engine import cuda_graphs
from qwen3vl.model.attention.varlen_kernels import VarlenKernel
from tests.support.varlen_kernels import masked_kernel

_REAL_SIGNATURE = signature(torch.cuda.graph)


class EmulatedGraph(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """In the place of `torch.cuda.CUDAGraph`. While it is entered, it records."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pool: list[EmulatedGraph] = []
        self._operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if needs_values(operation, args):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        result = operation(*args, **(kwargs or {}))
        self._operations.append((operation, args, kwargs or {}, new_tensors(args, kwargs, result)))
        return result

    def share_pool(self, pool: list[EmulatedGraph]) -> None:
        pool.append(self)
        self._pool = pool

    def pool(self) -> list[EmulatedGraph]:
        return self._pool

    def replay(self) -> None:
        for graph in self._pool:
            if graph is not self:  # its memory is used again
                for *_, results in graph._operations:
                    for tensor in results:
                        tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
        for operation, args, kwargs, results in self._operations:
            repeated = new_tensors(args, kwargs, operation(*args, **kwargs))
            for tensor, values in zip(results, repeated, strict=True):
                tensor.copy_(values)


def needs_values(operation: Any, args: Any) -> bool:
    """Return whether the host would wait for values, to know a result or its shape."""
    if operation is torch.ops.aten.index.Tensor:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return bool({torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & set(operation.tags))


def new_tensors(args: Any, kwargs: Any, result: Any) -> list[Tensor]:
    """Return the tensors of a result that have memory of their own, unlike views of arguments."""
    arguments = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
    memory = {tensor.untyped_storage().data_ptr() for tensor in arguments if not tensor.is_mkldnn}
    tensors = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
    return [tensor for tensor in tensors if tensor.untyped_storage().data_ptr() not in memory]


class EmulatedStream:
    """In the place of `torch.cuda.Stream`."""

    def __init__(self, device: torch.device) -> None:
        self.waited_for: list[EmulatedStream] = []

    def wait_stream(self, stream: EmulatedStream) -> None:
        self.waited_for.append(stream)


class _Streams(threading.local):
    def __init__(self) -> None:
        self.default = self.current = EmulatedStream(torch.device("cpu"))


class EmulatedCapture:
    """In the place of `torch.cuda.graph`, with what torch requires of it."""

    streams = _Streams()

    def __init__(self, cuda_graph: EmulatedGraph, **options: Any) -> None:
        _REAL_SIGNATURE.bind(cuda_graph, **options)
        assert options["capture_error_mode"] == "thread_local"
        assert options["stream"] is self.streams.current is not self.streams.default
        assert self.streams.default in options["stream"].waited_for
        cuda_graph.share_pool([] if options["pool"] is None else options["pool"])
        self._graph = cuda_graph

    def __enter__(self) -> None:
        self._graph.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        self._graph.__exit__(*error)  # type: ignore[no-untyped-call]


def _current_stream(device: torch.device) -> EmulatedStream:
    return EmulatedCapture.streams.current


@contextmanager
def _use_stream(stream: EmulatedStream) -> Iterator[None]:
    streams = EmulatedCapture.streams
    previous, streams.current = streams.current, stream
    try:
        yield
    finally:
        streams.current = previous


@contextmanager
def emulated_graphs(kernel: VarlenKernel | None = masked_kernel) -> Iterator[None]:
    """Let `GraphCapturer` capture graphs of models on the CPU, whose attention calls a kernel of plain torch."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("torch.cuda.CUDAGraph", EmulatedGraph))
        stack.enter_context(mock.patch("torch.cuda.graph", EmulatedCapture))
        stack.enter_context(mock.patch("torch.cuda.Stream", EmulatedStream))
        stack.enter_context(mock.patch("torch.cuda.stream", _use_stream))
        stack.enter_context(mock.patch("torch.cuda.current_stream", _current_stream))
        stack.enter_context(mock.patch.object(cuda_graphs, "varlen_kernel", return_value=kernel))
        cuda_graphs._capture_stream.cache_clear()
        stack.callback(cuda_graphs._capture_stream.cache_clear)
        yield


class CopyingTextGraphs(cuda_graphs.TextGraphs):
    """Graphs whose results are copied, as `Replica.execute` does on a GPU; counts the packs that they run."""

    def __init__(self, capture: Callable[[int], cuda_graphs.PromptsPass]) -> None:
        super().__init__(capture)
        self.num_packs = 0

    def run(self, pack: Any) -> Tensor | None:
        states = super().run(pack)
        self.num_packs += states is not None
        return None if states is None else states.clone()
