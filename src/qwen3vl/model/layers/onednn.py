"""Linear layers by oneDNN on CPUs with AVX-512, in float32 and bfloat16.

oneDNN keeps the weights in the layout that its kernels read, and applies an activation, a factor or a residual while it
writes the product. For float32, torch uses MKL, which is slower for few rows and, on AMD processors, for many as well;
for bfloat16 it uses oneDNN, but reorders the weights in every call. docs/performance.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from qwen3vl.model.layers.linear import Linear, LinearBase
from qwen3vl.model.layers.quantized import QuantizedLinear, dequantize_weight
from qwen3vl.model.layers.row_chunked import RowChunked

BLOCK_ROWS, QUANTIZED_BLOCK_ROWS, BLOCK_MULTIPLE = 1024, 2048, 64
"""Blocks of rows that are multiplied in one call: at most so many rows, a multiple of 64, and then the rest. Layers
with 8-bit weights convert them once for every block, and so have larger ones.

oneDNN generates and keeps code for every number of rows it is called with. With packs of arbitrary length, memory
grew by 50 MB in a thousand texts; with these blocks it does not grow.
"""


class OneDNNLinear(LinearBase):
    """A linear layer whose weights are in oneDNN's layout. For inference only: it has no gradients.

    Args:
        dense: The layer to convert, float32 or bfloat16 on the CPU.
    """

    weight: Tensor

    def __init__(self, dense: Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.bias = dense.bias
        self.register_buffer("weight", torch.ops.mkldnn._reorder_linear_weight(dense.weight.detach()))  # noqa: SLF001 (torch has no public names for these)

    def operand(self) -> Tensor:
        """Return the weights as they are multiplied.

        Returns:
            (out_features, in_features), in a layout that oneDNN reads.
        """
        return self.weight

    def dense_weight(self) -> Tensor:
        """Convert the weights to torch's layout.

        Returns:
            (out_features, in_features).
        """
        return self.weight.to_dense()

    def forward(self, rows: Tensor) -> Tensor:
        """Apply the layer; see `LinearBase.forward`.

        Args:
            rows: (num_rows, in_features), in the dtype of the weights.

        Returns:
            (num_rows, out_features), in the dtype of the weights.
        """
        return self._linear_unary(rows, "none")

    def gelu(self, rows: Tensor, approximate: str = "none") -> Tensor:
        """Apply the layer, then GELU; see `LinearBase.gelu`.

        Args:
            rows: (num_rows, in_features), in the dtype of the weights.
            approximate: `"none"` or `"tanh"`.

        Returns:
            (num_rows, out_features), in the dtype of the weights.
        """
        return self._linear_unary(rows, "gelu", approximate)

    def silu_mul(self, rows: Tensor, up_proj: LinearBase, swiglu: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Apply this layer as the gate of a SwiGLU unit; see `LinearBase.silu_mul`.

        Args:
            rows: (num_rows, in_features), in the dtype of the weights.
            up_proj: The layer whose output is multiplied by the gate.
            swiglu: Used only if `up_proj` is not a `OneDNNLinear`.

        Returns:
            (num_rows, out_features), in the dtype of the weights.
        """
        if not isinstance(up_proj, OneDNNLinear):
            return super().silu_mul(rows, up_proj, swiglu)
        return up_proj.mul(rows, self._linear_unary(rows, "swish"))

    def mul(self, rows: Tensor, factor: Tensor) -> Tensor:
        """Apply the layer and multiply elementwise.

        Args:
            rows: (num_rows, in_features), in the dtype of the weights.
            factor: (num_rows, out_features), in the dtype of the weights.

        Returns:
            `self(rows) * factor`, (num_rows, out_features), in the dtype of the weights.
        """
        return self._linear_binary(rows, factor, "mul")

    def add_residual(self, rows: Tensor, residual: Tensor) -> Tensor:
        """Apply the layer and add the residual; see `LinearBase.add_residual`.

        Args:
            rows: (num_rows, in_features), in the dtype of the weights.
            residual: (num_rows, out_features), in the dtype of the weights.

        Returns:
            (num_rows, out_features), in the dtype of the weights.
        """
        return self._linear_binary(rows, residual, "add")

    def _linear_unary(self, rows: Tensor, activation: str, algorithm: str = "") -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self.operand(), self.bias, activation, [], algorithm)  # type: ignore[no-any-return]  # noqa: SLF001

    def _linear_binary(self, rows: Tensor, other: Tensor, operation: str) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(rows, other, self.operand(), self.bias, operation)  # type: ignore[no-any-return]  # noqa: SLF001


class OneDNNQuantizedLinear(OneDNNLinear):
    """A linear layer with 8-bit weights, which are converted for every call. For inference only.

    Args:
        layer: The layer to convert, for float32 or bfloat16 activations on the CPU.
    """

    quantized_weight: Tensor
    weight_scale: Tensor

    def __init__(self, layer: QuantizedLinear) -> None:
        LinearBase.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self.register_buffer("quantized_weight", layer.quantized_weight)
        self.register_buffer("weight_scale", layer.weight_scale)

    def operand(self) -> Tensor:
        """Dequantize the weights.

        Returns:
            (out_features, in_features), in the dtype of the activations.
        """
        return dequantize_weight(self.quantized_weight, self.weight_scale)

    def dense_weight(self) -> Tensor:
        """Dequantize the weights.

        Returns:
            (out_features, in_features), in the dtype of the activations.
        """
        return self.operand()


def use_onednn_linears(model: nn.Module) -> None:
    """Replace a model's linear layers on the CPU by oneDNN's, in place, where that is faster.

    Layers are converted one after the other, so that at most one is in memory twice. Call this after everything that
    reads the ordinary weights. `RowChunked` modules with such layers run in blocks of rows from then on.

    Args:
        model: The model, used for inference only from now on.
    """
    for module in model.modules():
        for name, child in list(module.named_children()):
            converted = _convert(child)
            if converted is not None:
                setattr(module, name, converted)
    for module in model.modules():
        if isinstance(module, RowChunked):
            layer_types = {type(layer) for layer in module.modules()}
            if layer_types & {OneDNNLinear, OneDNNQuantizedLinear}:
                module.block_rows = QUANTIZED_BLOCK_ROWS if OneDNNQuantizedLinear in layer_types else BLOCK_ROWS
                module.block_multiple = BLOCK_MULTIPLE


def _convert(layer: nn.Module) -> LinearBase | None:
    """Return a layer in oneDNN's layout; None if it is no linear layer on the CPU, or is not faster then."""
    if isinstance(layer, Linear) and layer.weight.is_cpu and onednn_is_faster(layer.weight.dtype):
        return OneDNNLinear(layer)
    if isinstance(layer, QuantizedLinear) and layer.weight_scale.is_cpu and onednn_is_faster(layer.weight_scale.dtype):
        return OneDNNQuantizedLinear(layer)
    return None


@cache
def onednn_is_faster(dtype: torch.dtype) -> bool:
    """Return whether `OneDNNLinear` was measured to be faster on processors of this kind, and this torch supports it.

    Args:
        dtype: The dtype of the weights.

    Returns:
        True for float32 on processors with AVX-512, and for bfloat16 on processors with instructions for it.
    """
    available = (
        torch.backends.mkldnn.enabled
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
    )
    if not available:
        return False
    if dtype == torch.bfloat16:
        return supports_bfloat16()
    return dtype == torch.float32 and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def supports_bfloat16() -> bool:
    """Return whether this machine's CPU has instructions for bfloat16."""
    return torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 (torch has no public name for it)
