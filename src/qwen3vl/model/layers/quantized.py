"""Weights of eight bits: half the memory of bfloat16, a quarter of float32.  docs/performance.md measures the loss.

Each row of a matrix, one output, has a scale of its own: its largest value is the largest that eight bits hold.
Norms, token embeddings and what joins the vision tower to the language model stay as they are.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from qwen3vl.model.layers.elementwise import Elementwise
from qwen3vl.model.layers.linear import Linear, LinearBase

log = logging.getLogger(__name__)

WeightFormat = Literal["int8", "fp8"]
FP8 = torch.float8_e4m3fn
LARGEST = {"int8": 127.0, "fp8": torch.finfo(FP8).max}


class Quantized(LinearBase):
    """A linear layer of int8 weights, made wide again as they are used."""

    bits: WeightFormat = "int8"

    def __init__(self, plain: Linear) -> None:
        super().__init__()
        self.bias = plain.bias
        packed, scale = quantize_rows(plain.weight, self.bits)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    packed: Tensor
    scale: Tensor

    def matrix(self) -> Tensor:
        return self.packed.to(self.scale.dtype) * self.scale


class Float8(Quantized):
    """A linear layer of 8-bit floats; where the device multiplies them, the rows are sync_tracker to eight bits, too."""

    bits: WeightFormat = "fp8"

    def __init__(self, plain: Linear) -> None:
        super().__init__(plain)
        self.narrow_rows = Elementwise(quantize_rows_fp8)

    def forward(self, rows: Tensor) -> Tensor:
        return self.scaled(rows) if rows.is_cuda and supports_fp8_matmul(rows.device) else super().forward(rows)

    def scaled(self, rows: Tensor) -> Tensor:
        """The product of 8-bit rows, each with a scale of its own, and 8-bit weights."""
        narrow, scale = self.narrow_rows(rows)
        found = _multiply(narrow, scale, self.packed, self.scale).to(rows.dtype)
        return found if self.bias is None else found + self.bias


def _multiply(rows: Tensor, row_scale: Tensor, weights: Tensor, weight_scale: Tensor) -> Tensor:
    """(rows, in) and (out, in) of 8-bit floats with a scale a row, as (rows, out) in bfloat16."""
    return torch._scaled_mm(  # noqa: SLF001 (torch's public name for it is newer)
        rows,
        weights.T,
        scale_a=row_scale.float(),
        scale_b=weight_scale.T.float(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def quantize_rows(values: Tensor, bits: WeightFormat) -> tuple[Tensor, Tensor]:
    """(rows, values) as eight bits and the rows' scales, (rows, 1) in the dtype of the values."""
    if values.is_meta:
        kind = torch.int8 if bits == "int8" else FP8
        return torch.empty_like(values, dtype=kind), torch.empty_like(values[:, :1])
    scale = (values.abs().amax(1, keepdim=True) / LARGEST[bits]).clamp_min(torch.finfo(values.dtype).tiny)
    scaled = values.float() / scale.float()
    if bits == "int8":
        return scaled.round().clamp(-127, 127).to(torch.int8), scale
    return scaled.clamp(-LARGEST["fp8"], LARGEST["fp8"]).to(FP8), scale


def quantize_rows_fp8(values: Tensor) -> tuple[Tensor, Tensor]:
    """`pack`, for rows on their way."""
    return quantize_rows(values, "fp8")


def quantize_linears(model: nn.Module, bits: WeightFormat) -> set[str]:
    """Replaces the linear layers of the towers' blocks; the names of the weights that are to be packed."""
    names: set[str] = set()
    kind = Quantized if bits == "int8" else Float8
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and any(part in name for part in ("layers.", "blocks.")):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, kind(module))
            names.add(f"{name}.weight")
    return names


@lru_cache(maxsize=8)
def supports_fp8_matmul(device: torch.device) -> bool:
    """Whether the device multiplies 8-bit floats with a scale a row, and rightly (Ada, Hopper and newer)."""
    rows, weights = (torch.linspace(-1, 1, count * 64).view(count, 64).sin() for count in (16, 32))
    try:
        packed = [each.to(device) for one in (rows, weights) for each in quantize_rows(one, "fp8")]
        found = _multiply(*packed).float().cpu()
        torch.testing.assert_close(found, rows @ weights.T, atol=0.3, rtol=0.1)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # an older card
        log.info("no 8-bit products on %s: %s", device, str(error).partition("\n")[0])
        return False
    return True
