"""Matrix products, each with what follows it, by the fastest way that gives the same answers.

On x86 processors with AVX-512, float32 products go to oneDNN, which applies an activation, a factor or a residual as it
writes; plain torch sends them to MKL, which is slower at every size on AMD's processors (docs/performance.md).
"""

from __future__ import annotations

import platform
from functools import cache

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
        return self._product(rows, "none") if fusing(rows) else functional.linear(rows, self.matrix(), self.bias)

    def gelu(self, rows: Tensor, approximate: str = "none") -> Tensor:
        """The product through GELU; `approximate` as torch has it: "none" or "tanh"."""
        return self._product(rows, "gelu", approximate) if fusing(rows) else gelu(self(rows), approximate=approximate)

    def silu_times(self, rows: Tensor, other: Product) -> Tensor:
        """The product through SiLU, times another layer's of the same rows.  Only where `fusing(rows)`."""
        return other._with(rows, self._product(rows, "swish"), "mul")

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product added to `other`, a residual."""
        return self._with(rows, other, "add") if fusing(rows) else other + self(rows)

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


def fusing(rows: Tensor) -> bool:
    """Whether products of these rows take what follows them along."""
    return rows.device.type == "cpu" and rows.dtype == torch.float32 and not torch.is_grad_enabled() and _onednn()


@cache
def _onednn() -> bool:
    """Whether oneDNN is there and is the faster one; it knows no gradients, so training goes without."""
    return (
        bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
