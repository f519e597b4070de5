"""Linear layers of 8-bit integers on CPUs: weights and activations are quantized, and multiplied by oneDNN.

A product of 8-bit integers is several times as fast as one of float32 on processors with AVX512-VNNI or AMX, while
weights that are converted for every call (`Int8Linear`) make it slower. Activations have a scale for each row, which is
computed from the row: no calibration is needed, and no row depends on another. docs/performance.md has the
measurements and the loss.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from qwen3vl.model.layers.linear import Linear, LinearBase
from qwen3vl.model.layers.quantized import MAX_VALUE, Int8Linear

log = logging.getLogger(__name__)

ZERO_POINT = 128
"""What stands for 0 in the activations, which oneDNN takes as unsigned integers."""


class OneDNNInt8Linear(LinearBase):
    """A linear layer that multiplies 8-bit activations by 8-bit weights in oneDNN's layout. For inference only.

    Args:
        layer: The layer to convert, on the CPU, for float32 activations.
        quantize_remainder: Whether to multiply what quantization leaves of the activations as well, quantized again:
            16 bits in all, for twice the time.
    """

    quantized_weight: Tensor
    weight_scale: Tensor
    zero_points: Tensor

    def __init__(self, layer: Int8Linear, *, quantize_remainder: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self.quantize_remainder = quantize_remainder
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
        rounded, scale = round_rows(rows)
        if self.quantize_remainder:
            remainder, remainder_scale = round_rows(rows - rounded * scale)
            product, remainder_product = self._multiply(torch.cat([rounded, remainder])).chunk(2)
            product.mul_(scale).add_(remainder_product.mul_(remainder_scale))
        else:
            product = self._multiply(rounded).mul_(scale)
        return product if self.bias is None else product.add_(self.bias)

    def _multiply(self, rounded_rows: Tensor) -> Tensor:
        """Multiply rows of whole numbers from -127 to 127 by the weights."""
        # A conversion to uint8 is five times slower than to int8; flipping the highest bit adds 128.
        unsigned_rows = rounded_rows.to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO_POINT)
        return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
            unsigned_rows,
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


def round_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row symmetrically, as `quantize_rows` does, by operations that are fast on CPUs.

    Args:
        rows: (num_rows, num_columns), float32.

    Returns:
        Whole numbers from -127 to 127, (num_rows, num_columns) float32, and the scales, (num_rows, 1) float32; their
        product is close to `rows`.
    """
    largest = torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())
    scale = largest.div_(MAX_VALUE["int8"]).clamp_min_(torch.finfo(rows.dtype).tiny)
    return (rows / scale).round_(), scale


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
