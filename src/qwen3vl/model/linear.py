"""Matrix products, each with what follows it, by the fastest way that gives the same answers.

On AMD's processors with AVX-512, float32 products go to oneDNN, which applies an activation, a factor or a residual as
it writes; plain torch sends them to MKL, which is slower there at every size (docs/performance.md).
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import gelu


class Product(nn.Module):
    """A linear layer over rows, (rows, in) to (rows, out), whatever its weights are kept as."""

    bias: Tensor | None

    def matrix(self) -> Tensor:
        """The weights, (out, in), in the dtype of the rows."""
        raise NotImplementedError

    def forward(self, rows: Tensor) -> Tensor:
        return self._product(rows, "none") if _fusing(rows) else functional.linear(rows, self.matrix(), self.bias)

    def gelu(self, rows: Tensor, approximate: str = "none") -> Tensor:
        """The product through GELU; `approximate` as torch has it: "none" or "tanh"."""
        return self._product(rows, "gelu", approximate) if _fusing(rows) else gelu(self(rows), approximate=approximate)

    def silu_times(self, rows: Tensor, other: Product, gate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The product through SiLU, times another layer's of the same rows: `gate` does that to products."""
        if _fusing(rows):
            return other._with(rows, self._product(rows, "swish"), "mul")
        return gate(self(rows), other(rows))

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product added to `other`, a residual."""
        return self._with(rows, other, "add") if _fusing(rows) else other + self(rows)

    def _product(self, rows: Tensor, activation: str, algorithm: str = "") -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self.matrix(), self.bias, activation, [], algorithm)  # type: ignore[no-any-return]  # noqa: SLF001 (torch has no public name for it)

    def _with(self, rows: Tensor, other: Tensor, operation: str) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(rows, other, self.matrix(), self.bias, operation)  # type: ignore[no-any-return]  # noqa: SLF001


class Linear(Product):
    """With weights as a checkpoint has them, and their names."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs, bias=bias)
        self.weight = plain.weight
        self.bias = plain.bias

    def matrix(self) -> Tensor:
        return self.weight


BLOCKS = (1024, 512, 256, 128, 64)
"""Rows that oneDNN multiplies at once; what is left is fewer than the last.  It makes code for each number of rows that
it meets, and keeps it: with packs as long as they come, memory grew by 50 MB a thousand texts.  Larger blocks are no
faster."""
Rows = TypeVar("Rows", Tensor, tuple[Tensor, ...])


def by_rows(work: Callable[..., Rows], *rows: Tensor) -> Rows:
    """`work` on tensors of equally many rows, block by block where oneDNN does the products; else on all at once."""
    if not _fusing(rows[0]):
        return work(*rows)
    sizes, left = [], len(rows[0])
    for size in BLOCKS:
        sizes += [size] * (left // size)
        left %= size
    sizes += [left] if left else []
    parts = [work(*block) for block in zip(*(torch.split(each, sizes) for each in rows), strict=True)]
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))


def _fusing(rows: Tensor) -> bool:
    """Whether oneDNN takes these products; it knows no gradients, so training goes without."""
    return (
        rows.device.type == "cpu"
        and rows.dtype == torch.float32
        and not torch.is_grad_enabled()
        and bool(torch.backends.mkldnn.enabled)
        and _onednn_is_faster()
    )


@cache
def _onednn_is_faster() -> bool:
    return (
        bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and "AMD" in _vendor()
    )


def _vendor() -> str:
    """AuthenticAMD, GenuineIntel, …"""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("vendor_id")), "")
