"""Linear layers of 8-bit integers on CPUs: weights of 8 bits and activations of 16, multiplied by oneDNN.

A product of 8-bit integers is several times as fast as one of float32 on processors with AVX512-VNNI or AMX, while
weights that are converted for every call (`Int8Linear`) make it slower. Activations have a scale for each row, which is
computed from the row: no calibration is needed, and no row depends on another. 8 bits are too few for them, since some
rows have a few values that are much larger than the rest (Sun et al. 2024, arXiv 2402.17762). They are quantized to 16
bits, and the two halves multiplied separately: what is lost is what quantization of the weights loses.
docs/performance.md has the measurements and the loss.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from qwen3vl.model.layers.linear import Linear, LinearBase
from qwen3vl.model.layers.quantized import Int8Linear

log = logging.getLogger(__name__)

HIGH_STEP = 256
"""What one step of the higher half of an activation is worth, in steps of the lower one."""
MAX_ACTIVATION = 127 * HIGH_STEP
"""The largest value of a quantized activation: the higher half of none is above 127."""
ZERO_POINT = 128
"""What stands for 0 in the halves, which oneDNN takes as unsigned integers."""


class OneDNNInt8Linear(LinearBase):
    """A linear layer that multiplies 16-bit activations by 8-bit weights in oneDNN's layout. For inference only.

    Args:
        layer: The layer to convert, on the CPU, for float32 activations.
    """

    quantized_weight: Tensor
    weight_scale: Tensor
    zero_points: Tensor

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self.register_buffer("quantized_weight", torch.ops.onednn.qlinear_prepack(layer.quantized_weight, None))
        self.register_buffer("weight_scale", layer.weight_scale)
        self.register_buffer("zero_points", torch.zeros(self.out_features, dtype=torch.int32), persistent=False)

    def dense_weight(self) -> Tensor:
        """Dequantize the weights.

        Returns:
            (out_features, in_features), float32.
        """
        return self.quantized_weight.to_dense().t().float().mul_(self.weight_scale)

    def forward(self, rows: Tensor) -> Tensor:
        """Quantize the rows, and apply the layer.

        Args:
            rows: (num_rows, in_features), float32.

        Returns:
            (num_rows, out_features), float32.
        """
        product, scale = self._multiply(rows)
        return product.mul_(scale) if self.bias is None else torch.addcmul(self.bias, product, scale)

    def add_residual(self, rows: Tensor, residual: Tensor) -> Tensor:
        """Apply the layer and add the residual; see `LinearBase.add_residual`.

        Args:
            rows: (num_rows, in_features), float32.
            residual: (num_rows, out_features), float32.

        Returns:
            (num_rows, out_features), float32.
        """
        product, scale = self._multiply(rows)
        result = torch.addcmul(residual, product, scale)
        return result if self.bias is None else result.add_(self.bias)

    def _multiply(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows by the weights, except for the scales of the rows.

        Args:
            rows: (num_rows, in_features), float32.

        Returns:
            (num_rows, out_features) float32, and the factors of its rows, (num_rows, 1) float32.
        """
        halves, scale = quantize_to_halves(rows)
        # One call for both halves, which reads the weights once.
        products = torch.ops.onednn.qlinear_pointwise(
            halves.view(-1, self.in_features).view(torch.uint8).bitwise_xor_(ZERO_POINT),  # adds 128 to an int8
            1.0,  # oneDNN takes one scale for all rows: theirs are applied to the product
            ZERO_POINT,
            self.quantized_weight,
            self.weight_scale,
            self.zero_points,
            None,  # the bias is added after the rows' scales
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        high, low = products.chunk(2)
        return low.add_(high, alpha=HIGH_STEP), scale


def quantize_to_halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row symmetrically to 16 bits, and split the values into two integers of 8 bits.

    Args:
        rows: (num_rows, num_columns), float32.

    Returns:
        The higher and the lower halves, (2, num_rows, num_columns) int8, and the scales, (num_rows, 1) float32:
        `(high * HIGH_STEP + low) * scale` is within half a `scale` of `rows`.
    """
    largest = torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())
    scale = largest.div_(MAX_ACTIVATION).clamp_min_(torch.finfo(rows.dtype).tiny)
    quantized = (rows * scale.reciprocal()).round_().to(torch.int16)
    halves = quantized.new_empty((2, *rows.shape), dtype=torch.int8)
    halves[1].copy_(quantized)  # keeps the lower 8 bits, as a signed number
    halves[0].copy_(quantized.add_(HIGH_STEP // 2).bitwise_right_shift_(8))
    return halves, scale


@cache
@torch.inference_mode()
def supports_int8_matmul() -> bool:
    """Return whether this processor has instructions for 8-bit products, and this torch uses them correctly."""
    if not torch.cpu._is_vnni_supported():  # noqa: SLF001 (torch has no public name for it)
        return False
    try:
        rows, weight = (torch.linspace(-1, 1, count * 64).view(count, 64).sin() for count in (16, 32))
        dense = Linear(64, 32, bias=False)
        dense.weight.data = weight
        torch.testing.assert_close(OneDNNInt8Linear(Int8Linear(dense))(rows), rows @ weight.t(), atol=0.2, rtol=0.05)
    except Exception as error:  # operators of another torch: several types
        log.info("8-bit integers are not multiplied by oneDNN: %s", str(error).partition("\n")[0])
        return False
    return True
