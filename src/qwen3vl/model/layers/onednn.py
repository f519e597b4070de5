"""Products by oneDNN, for float32 on AMD's processors with AVX-512; plain torch's are MKL's, which is slower there.

The weights lie as its kernels read them, and it applies an activation, a factor or a residual as it writes.
docs/performance.md has the figures.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from qwen3vl.model.layers.linear import Linear, LinearBase, RowChunked

MOST, STEP = 1024, 64
"""Rows that are multiplied at once: as many, or a multiple of the step, and then what is left.  oneDNN makes code for
each number of rows that it meets, and keeps it: with packs as long as they come, memory grew by 50 MB a thousand texts.
"""


class OneDNNLinear(LinearBase):
    """A linear layer whose weights no one but oneDNN reads.  It knows no gradients."""

    def __init__(self, plain: Linear) -> None:
        super().__init__()
        self.bias = plain.bias
        self.register_buffer("weight", torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach()))  # noqa: SLF001 (torch has no public names for these)

    weight: Tensor

    def matrix(self) -> Tensor:
        return self.weight.to_dense()

    def forward(self, rows: Tensor) -> Tensor:
        return self._product(rows, "none")

    def gelu(self, rows: Tensor, approximate: str = "none") -> Tensor:
        return self._product(rows, "gelu", approximate)

    def silu_mul(self, rows: Tensor, other: LinearBase, gate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        if not isinstance(other, OneDNNLinear):
            return super().silu_mul(rows, other, gate)
        return other.times(rows, self._product(rows, "swish"))

    def times(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product, times `other`, value by value."""
        return self._with(rows, other, "mul")

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        return self._with(rows, other, "add")

    def _product(self, rows: Tensor, activation: str, algorithm: str = "") -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, activation, [], algorithm)  # type: ignore[no-any-return]  # noqa: SLF001

    def _with(self, rows: Tensor, other: Tensor, operation: str) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(rows, other, self.weight, self.bias, operation)  # type: ignore[no-any-return]  # noqa: SLF001


def use_onednn_linears(model: nn.Module) -> None:
    """Replaces linear layers of float32 by `OneDNNLinear` ones, one after the other, where those are faster.

    For inference: call it when nobody needs the plain weights any more.
    """
    if not (torch.backends.mkldnn.enabled and onednn_is_faster()):
        return
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, Linear) and child.weight.device.type == "cpu" and child.weight.dtype == torch.float32:
                setattr(module, name, OneDNNLinear(child))
    for module in model.modules():
        if isinstance(module, RowChunked) and any(isinstance(each, OneDNNLinear) for each in module.modules()):
            module.most, module.step = MOST, STEP


@cache
def onednn_is_faster() -> bool:
    """Whether this processor, and this torch, are ones that were measured so."""
    return (
        bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
        and "AMD" in _vendor()
    )


def _vendor() -> str:
    """AuthenticAMD, GenuineIntel, …"""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("vendor_id")), "")
