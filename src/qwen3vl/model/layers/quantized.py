"""Linear layers with 8-bit weights: half the memory of bfloat16, a quarter of float32.

Weights are quantized symmetrically: a scale maps the largest absolute value to the largest value of the 8-bit format.
With fp8 every row of a weight matrix (one output feature) has a scale, with int8 every group of 32 values in a row, as
in llama.cpp's Q8_0. Norms, the embeddings of tokens, patches and positions, and the mergers between the vision tower
and the language model keep their precision. docs/performance.md has the measured loss.
"""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from qwen3vl.model.layers.elementwise import Elementwise
from qwen3vl.model.layers.linear import Linear, LinearBase

log = logging.getLogger(__name__)

WeightFormat = Literal["int8", "fp8"]
"""8-bit formats of weights: signed integers, or floats with 4 exponent and 3 mantissa bits (E4M3)."""
FP8_DTYPE = torch.float8_e4m3fn
MAX_VALUE = {"int8": 127.0, "fp8": torch.finfo(FP8_DTYPE).max}
"""The largest value of each format; int8 is used symmetrically, without -128."""
INT8_GROUP_SIZE = 32
"""Number of int8 weights that share a scale. One scale for a whole row loses twice as much."""


class QuantizedLinear(LinearBase):
    """A linear layer with 8-bit weights, which are converted to the activations' dtype for every call.

    On a CPU, the conversion takes a twentieth of the time of a product of 2,048 rows in bfloat16. Products of 8-bit
    integers were slower there: for the same exactness, activations have to be quantized to 16 bits.

    Args:
        dense: The layer to quantize.
    """

    weight_format: WeightFormat
    quantized_weight: Tensor
    weight_scale: Tensor

    def __init__(self, dense: Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.bias = dense.bias
        quantized_weight, weight_scale = quantize_weight(dense.weight, self.weight_format)
        self.register_buffer("quantized_weight", quantized_weight)
        self.register_buffer("weight_scale", weight_scale)

    def dense_weight(self) -> Tensor:
        """Dequantize the weights.

        Returns:
            (out_features, in_features), in the dtype of the activations.
        """
        return dequantize_weight(self.quantized_weight, self.weight_scale)


class Int8Linear(QuantizedLinear):
    """A linear layer with int8 weights.

    Args:
        dense: The layer to quantize.
    """

    weight_format: WeightFormat = "int8"


class Float8Linear(QuantizedLinear):
    """A linear layer with 8-bit float weights. Devices that multiply 8-bit floats quantize the activations as well.

    Args:
        dense: The layer to quantize.
    """

    weight_format: WeightFormat = "fp8"

    def __init__(self, dense: Linear) -> None:
        super().__init__(dense)
        self.quantize_activations = Elementwise(quantize_rows_fp8)

    def forward(self, rows: Tensor) -> Tensor:
        """Apply the layer, by an 8-bit product if the device has one.

        Args:
            rows: (num_rows, in_features).

        Returns:
            (num_rows, out_features), in the dtype of `rows`.
        """
        if rows.is_cuda and supports_fp8_matmul(rows.device):
            return self.fp8_matmul(rows)
        return super().forward(rows)

    def fp8_matmul(self, rows: Tensor) -> Tensor:
        """Apply the layer to rows that are quantized to 8-bit floats, each with its own scale; rounds to bfloat16.

        Args:
            rows: (num_rows, in_features).

        Returns:
            (num_rows, out_features), in the dtype of `rows`.
        """
        quantized_rows, row_scale = self.quantize_activations(rows)
        product = _scaled_matmul(quantized_rows, row_scale, self.quantized_weight, self.weight_scale).to(rows.dtype)
        return product if self.bias is None else product.add_(self.bias)


def quantize_weight(weight: Tensor, weight_format: WeightFormat) -> tuple[Tensor, Tensor]:
    """Quantize the weights of a linear layer to 8 bits.

    Args:
        weight: (out_features, in_features).
        weight_format: `"int8"` or `"fp8"`.

    Returns:
        The quantized weights, (out_features, in_features) int8 or float8_e4m3fn, and the scales, (out_features,
        num_groups) in the dtype of `weight`: with int8 one for each group of `INT8_GROUP_SIZE` values, or of 16 or
        fewer if 32 does not divide the row; with fp8 one for each row.
    """
    in_features = weight.shape[1]
    group_size = math.gcd(in_features, INT8_GROUP_SIZE) if weight_format == "int8" else in_features
    quantized_weight, scale = quantize_rows(weight.reshape(-1, group_size), weight_format)
    return quantized_weight.view_as(weight), scale.view(len(weight), -1)


def dequantize_weight(quantized_weight: Tensor, scale: Tensor) -> Tensor:
    """Reverse `quantize_weight`.

    Args:
        quantized_weight: (out_features, in_features).
        scale: (out_features, num_groups).

    Returns:
        (out_features, in_features), in the dtype of `scale`.
    """
    weight = quantized_weight.to(scale.dtype)
    weight.view(*scale.shape, -1).mul_(scale[..., None])
    return weight


def quantize_rows(values: Tensor, weight_format: WeightFormat) -> tuple[Tensor, Tensor]:
    """Quantize a matrix to 8 bits, with a scale for every row.

    Args:
        values: (num_rows, num_columns). On the meta device only shapes and dtypes are computed.
        weight_format: `"int8"` or `"fp8"`.

    Returns:
        The quantized values, (num_rows, num_columns) int8 or float8_e4m3fn, and the scales, (num_rows, 1) in the dtype
        of `values`; their product is close to `values`.
    """
    if values.is_meta:
        dtype = torch.int8 if weight_format == "int8" else FP8_DTYPE
        return torch.empty_like(values, dtype=dtype), torch.empty_like(values[:, :1])
    max_value = MAX_VALUE[weight_format]
    scale = (values.abs().amax(1, keepdim=True) / max_value).clamp_min(torch.finfo(values.dtype).tiny)
    scaled = values.float() / scale.float()
    if weight_format == "int8":
        return scaled.round_().clamp_(-127, 127).to(torch.int8), scale
    return scaled.clamp_(-max_value, max_value).to(FP8_DTYPE), scale


def quantize_rows_fp8(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize activations as `quantize_rows` does, in few operations: each is a launch of a kernel on a GPU.

    Args:
        values: (num_rows, num_columns).

    Returns:
        The values, (num_rows, num_columns) float8_e4m3fn, and the scales, (num_rows, 1) float32.
    """
    largest = torch.linalg.vector_norm(values, torch.inf, dim=1, keepdim=True, dtype=torch.float32)
    tiny = torch.finfo(torch.float32).tiny
    scale = torch.rsub(largest, tiny, alpha=-1 / MAX_VALUE["fp8"])  # tiny + largest / 448 by one kernel; not 0
    return (values / scale).to(FP8_DTYPE), scale  # exact enough that nothing exceeds the largest value


def quantize_linears(model: nn.Module, weight_format: WeightFormat) -> set[str]:
    """Replace the linear layers in the blocks of both towers by quantized ones, in place.

    Args:
        model: A `Qwen3VL`.
        weight_format: The format of the new layers.

    Returns:
        The names of the weights that the new layers hold quantized, such as
        `language_model.layers.0.mlp.up_proj.weight`.
    """
    quantized_names: set[str] = set()
    layer_class = Int8Linear if weight_format == "int8" else Float8Linear
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and any(part in name for part in ("layers.", "blocks.")):
            parent_name, _, child_name = name.rpartition(".")
            setattr(model.get_submodule(parent_name), child_name, layer_class(module))
            quantized_names.add(f"{name}.weight")
    return quantized_names


@lru_cache(maxsize=8)
def supports_fp8_matmul(device: torch.device) -> bool:
    """Return whether a device multiplies 8-bit floats with a scale for every row, and does so correctly.

    Ada, Hopper and newer GPUs do. The result is computed once for every device.

    Args:
        device: A CUDA device.

    Returns:
        Whether 8-bit products work.

    Raises:
        torch.OutOfMemoryError: The device has no memory left for the check.
    """
    rows, weight = (torch.linspace(-1, 1, count * 64).view(count, 64).sin() for count in (16, 32))
    try:
        operands = [tensor.to(device) for matrix in (rows, weight) for tensor in quantize_rows(matrix, "fp8")]
        product = _scaled_matmul(*operands).float().cpu()
        torch.testing.assert_close(product, rows @ weight.T, atol=0.3, rtol=0.1)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # an older GPU: torch raises several types
        log.info("%s does not multiply 8-bit floats: %s", device, str(error).partition("\n")[0])
        return False
    return True


def _scaled_matmul(rows: Tensor, row_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """Multiply (num_rows, in_features) by (out_features, in_features), float8 with row scales, to bfloat16."""
    return torch._scaled_mm(  # noqa: SLF001 (torch's public name for it is newer)
        rows,
        weight.t(),
        scale_a=row_scale.float(),
        scale_b=weight_scale.t().float(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
