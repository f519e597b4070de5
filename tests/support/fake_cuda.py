"""A CUDA device without a GPU: fake tensors, which have a shape, dtype and device but no values.

What a pass would do on a GPU is seen by dispatch modes: which kernels it launches, and how much memory is in use. An
operation that needs values on the host, such as `.item()`, fails, since there are none.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qwen3vl.model import vision_positions
from qwen3vl.model.attention import varlen_kernels
from qwen3vl.model.layers import quantized

CUDA = torch.device("cuda", 0)
NEEDS_DRIVER = not (torch.cuda.is_available() or hasattr(torch._C, "_ensureCUDADeviceGuardSet"))
"""Whether this torch, without a GPU, cannot do everything with fake CUDA tensors."""


class HostWaitsError(Exception):
    """The host would wait for the device."""


def _refuse_to_wait(device: object = None) -> None:
    raise HostWaitsError


class FakeEvent:
    """In the place of `torch.cuda.Event`."""

    def __init__(self, *, enable_timing: bool, blocking: bool = False) -> None:
        self.recorded = False
        self.blocking = blocking

    def record(self, stream: object) -> None:
        self.recorded = True


def load_fake_flash_attn() -> ModuleType:
    """Return a module with the signature of flash-attn 2.8 and the fake kernel of torch, which is the same kernel."""

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
        deterministic: bool = False,
        return_attn_probs: bool = False,
        block_table: Tensor | None = None,
    ) -> Any:
        output, *_ = torch.ops.aten._flash_attention_forward(
            q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, causal, False
        )
        # Before torch 2.8 the fake log-sum-exps have another shape.
        return (output, q.new_empty(q.shape[1::-1], dtype=torch.float32), None) if return_attn_probs else output

    module = ModuleType("flash_attn")
    vars(module).update(flash_attn_varlen_func=flash_attn_varlen_func)
    return module


@contextmanager
def fake_cuda(kernel: str) -> Iterator[FakeTensorMode]:
    """Enter inference on a fake H100 whose varlen kernel is one of `varlen_kernels.KERNEL_LOADERS`."""
    caches = _caches_of_devices()
    mode = FakeTensorMode()  # before anything is replaced, because it imports much of torch
    with ExitStack() as stack:
        stack.enter_context(mock.patch("torch.cuda.Event", FakeEvent))
        stack.enter_context(mock.patch("torch.cuda.default_stream", return_value=None))
        stack.enter_context(mock.patch("torch.cuda.device", nullcontext))
        stack.enter_context(mock.patch("torch.cuda.synchronize", _refuse_to_wait))
        # The device and version for which torch would choose cuDNN, if our calls did not exclude it.
        stack.enter_context(mock.patch("torch.cuda.get_device_capability", return_value=(9, 0)))
        stack.enter_context(mock.patch("torch.backends.cudnn.version", return_value=91900))
        # These compare values, of which there are none.
        stack.enter_context(mock.patch.object(varlen_kernels, "check_kernel", return_value=None))
        stack.enter_context(mock.patch.object(quantized, "supports_fp8_matmul", return_value=True))
        if kernel == "flash-attn":
            stack.enter_context(mock.patch.dict(sys.modules, flash_attn=load_fake_flash_attn()))
        loaders = {kernel: varlen_kernels.KERNEL_LOADERS[kernel]}
        stack.enter_context(mock.patch.object(varlen_kernels, "KERNEL_LOADERS", loaders))

        def pin_memory(values: Tensor) -> Tensor:
            return torch.empty(values.shape, dtype=values.dtype)  # a fake copy of `torch.tensor(...)` knows its values

        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", pin_memory))
        for cache in caches:
            cache.cache_clear()
            stack.callback(cache.cache_clear)
        stack.enter_context(mode)
        if NEEDS_DRIVER:
            stack.enter_context(_IndexWithoutDriver())
        stack.enter_context(torch.inference_mode())
        yield mode


class _IndexWithoutDriver(TorchFunctionMode):
    """Indexes and fills fake tensors by operators; in an old torch `[]` and `copy_` themselves need a driver."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (args and isinstance(args[0], FakeTensor)):
            return function(*args, **(kwargs or {}))
        if function is Tensor.__getitem__:
            return _index(*args)
        if function is Tensor.__setitem__:
            target = _index(*args[:2])
            return torch.ops.aten.copy_(target, args[2])
        if function is Tensor.copy_:
            return torch.ops.aten.copy_(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _index(values: Tensor, index: Any) -> Tensor:
    """Return `values[index]`; of a tuple's members, one may be a tensor."""
    members = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [member for member in members if not isinstance(member, Tensor)]:
        position = members.index(Ellipsis)
        num_indexed = sum(member is not None and member is not Ellipsis for member in members)
        members[position : position + 1] = [slice(None)] * (values.dim() - num_indexed)
    dim = 0
    for member in members:
        if isinstance(member, int):
            values = values.select(dim, member)
            continue
        if member is None:
            values = values.unsqueeze(dim)
        elif isinstance(member, slice):
            values = torch.ops.aten.slice(values, dim, member.start, member.stop, member.step or 1)
        else:
            values = torch.ops.aten.index(values, [None] * dim + [member])
        dim += 1
    return values


def _caches_of_devices() -> list[Any]:
    """Return the caches that would remember the fake device or its tensors."""
    caches: list[Any] = [
        varlen_kernels.select_varlen_kernel,
        vision_positions.rotary_angles,
        vision_positions.bilinear_corners,
    ]
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return caches
    return [*caches, *(value for value in vars(varlen).values() if hasattr(value, "cache_clear"))]


KINDS = {
    "matmul": ("mm", "addmm", "addmm_", "bmm", "_scaled_mm"),
    "attention": ("_varlen_attn", "_flash_attention_forward"),
    "norm": ("native_layer_norm", "_fused_rms_norm"),
    "copy": ("_to_copy", "copy_", "clone", "cat", "embedding", "index", "index_copy", "index_copy_"),
}
"""Operations by kind. All others that launch a kernel are elementwise or, in few cases, reductions of rows."""
_NO_KERNELS = {"empty", "empty_like", "new_empty", "device", "lift_fresh", "detach", "detach_", "_unsafe_view"}


@cache
def kernel_kind(operation: Any) -> str | None:
    """Return the kind of kernel that an operation launches on a GPU; None if it launches none."""
    name = operation.name().partition("::")[2].partition(".")[0]
    if name in _NO_KERNELS or _is_view(operation):
        return None
    return next((kind for kind, names in KINDS.items() if name in names), "elementwise")


def _is_view(operation: Any) -> bool:
    """Return whether an operation returns views of its arguments, and writes nothing."""
    aliases = [returned.alias_info for returned in operation._schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


@cache
def _is_composite(operation: Any) -> bool:
    """Return whether an operation consists of others on a GPU, too; `_fused_rms_norm` has a kernel there."""
    return (
        operation.namespace == "aten"
        and operation.name() != "aten::_fused_rms_norm"
        and torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), "CompositeImplicitAutograd")
    )


class DeviceTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, after composite ones are taken apart, and notes what it would do on a GPU.

    Attributes:
        kernels: Number of kernels by kind; copies from and to the host are `from host` and `to host`.
        operations: Number of operations by kind and name.
        waits: Copies for which the host waits.
        dtypes: Dtypes of results by kind.
        peak_bytes: Largest memory in use by tensors that were created on the device meanwhile.
        attention_calls: Arguments of each call of the varlen kernel, by the names in its schema; dtypes of tensors.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: Counter[str] = Counter()
        self.operations: Counter[tuple[str, str]] = Counter()
        self.waits: list[str] = []
        self.dtypes: defaultdict[str, set[torch.dtype]] = defaultdict(set)
        self.peak_bytes = 0
        self.attention_calls: list[dict[str, Any]] = []
        self._alive: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(operation):
            with self:
                return operation.decompose(*args, **kwargs)
        result = operation(*args, **kwargs)
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        outputs = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        if any(tensor.is_cuda for tensor in (*inputs, *outputs)):
            self._count(operation, args, kwargs, inputs, outputs)
            if not _is_view(operation):
                self._follow(outputs)
        return result

    def _count(self, operation: Any, args: Any, kwargs: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        kind = kernel_kind(operation)
        if kind is None:
            return
        dtypes = {tensor.dtype for tensor in inputs}
        if kind == "matmul" and len(dtypes) > 1 and operation.name() != "aten::_scaled_mm":
            raise RuntimeError(f"{operation.name()} of {dtypes}")  # fake tensors do not check this
        arguments = _arguments_by_name(operation, args, kwargs)
        on_device = {tensor.is_cuda for tensor in (*inputs, *outputs) if tensor.dim() or kind == "copy"}
        if kind == "copy" and len(on_device) == 2:
            kind = "from host" if outputs[0].is_cuda else "to host"
            if not arguments.get("non_blocking"):
                self.waits.append(f"{operation.name()} {kind}")
        if kind == "attention":
            self.attention_calls.append({name: _without_memory(value) for name, value in arguments.items()})
        self.dtypes[kind].add(outputs[0].dtype)
        self.kernels[kind] += 1
        self.operations[kind, operation.name()] += 1

    def _follow(self, outputs: list[Tensor]) -> None:
        for tensor in outputs:
            if tensor.is_cuda:
                storage = tensor.untyped_storage()
                self._alive[StorageWeakRef(storage)] = storage.nbytes()  # type: ignore[no-untyped-call]
        self._alive = {
            storage: size
            for storage, size in self._alive.items()
            if not storage.expired()  # type: ignore[no-untyped-call]
        }
        self.peak_bytes = max(self.peak_bytes, sum(self._alive.values()))


def _arguments_by_name(operation: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    arguments = operation._schema.arguments
    defaults = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    positional = {argument.name: value for argument, value in zip(arguments, args, strict=False)}
    return {**defaults, **positional, **kwargs}


def _without_memory(value: Any) -> Any:
    """Replace a tensor, which would stay in memory, by its dtype."""
    return value.dtype if isinstance(value, Tensor) else value


def read_after(module: torch.nn.Module, read: Callable[[Tensor], Any]) -> Any:
    """Call a function with each output of a module, which stays as it is; returns the hook."""

    def hook(_module: torch.nn.Module, _arguments: Any, output: Tensor) -> None:
        read(output)

    return module.register_forward_hook(hook)
