"""Linear layers give the same result in every weight format and for every size of blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qwen3vl.model.layers import onednn
from qwen3vl.model.layers.elementwise import apply_rotary, rms_norm, swiglu
from qwen3vl.model.layers.linear import Linear
from qwen3vl.model.layers.onednn import (
    BLOCK_MULTIPLE,
    BLOCK_ROWS,
    QUANTIZED_BLOCK_ROWS,
    OneDNNLinear,
    OneDNNQuantizedLinear,
    onednn_is_faster,
    use_onednn_linears,
)
from qwen3vl.model.layers.quantized import WeightFormat, quantize_linears
from qwen3vl.model.layers.row_chunked import RowChunked

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch is built without oneDNN"
)
needs_bfloat16 = pytest.mark.skipif(
    not onednn_is_faster(torch.bfloat16), reason="this processor has no instructions for bfloat16"
)


class ChunkedMLP(RowChunked):
    """Two steps as in the model's layers: one that returns several tensors of rows, and one that returns one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = Linear(width, 3 * width), Linear(width, 3 * width, bias=False)

    def forward(self, rows: Tensor, residual: Tensor) -> Tensor:
        activated, gated = self.map_row_blocks(self._activate, rows)
        return self.map_row_blocks(self._project, activated, gated, residual)

    def _activate(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.gate_proj.gelu(rows), self.gate_proj.silu_mul(rows, self.up_proj, swiglu)

    def _project(self, activated: Tensor, gated: Tensor, residual: Tensor) -> Tensor:
        return self.gate_proj.add_residual(residual, activated + gated)


@needs_onednn
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 40), st.booleans())
@torch.inference_mode()
def test_onednn_linear_equals_dense_linear(num_rows: int, in_features: int, out_features: int, bias: bool) -> None:
    torch.manual_seed(num_rows)
    dense, dense_up = Linear(in_features, out_features, bias=bias), Linear(in_features, out_features, bias=False)
    fast, fast_up = OneDNNLinear(dense), OneDNNLinear(dense_up)
    rows, residual = torch.randn(num_rows, in_features), torch.randn(num_rows, out_features)
    for actual, expected in (
        (fast(rows), dense(rows)),
        (fast.gelu(rows), dense.gelu(rows)),
        (fast.gelu(rows, "tanh"), dense.gelu(rows, "tanh")),
        (fast.add_residual(rows, residual), dense.add_residual(rows, residual)),
        (fast.silu_mul(rows, fast_up, swiglu), dense.silu_mul(rows, dense_up, swiglu)),
        (fast.silu_mul(rows, dense_up, swiglu), dense.silu_mul(rows, dense_up, swiglu)),
    ):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(fast.dense_weight(), dense.weight)


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_onednn_linear_in_bfloat16_is_close_to_float32(bias: bool) -> None:
    dense, dense_up = (Linear(40, 48, bias=bias).bfloat16() for _ in range(2))
    exact, exact_up = (Linear(40, 48, bias=bias) for _ in range(2))
    for layer, copy in ((dense, exact), (dense_up, exact_up)):
        copy.load_state_dict({name: value.float() for name, value in layer.state_dict().items()})
    fast, fast_up = OneDNNLinear(dense), OneDNNLinear(dense_up)
    rows, residual = torch.randn(70, 40).bfloat16(), torch.randn(70, 48).bfloat16()
    wide_rows, wide_residual = rows.float(), residual.float()
    for actual, expected in (
        (fast(rows), exact(wide_rows)),
        (fast.gelu(rows, "tanh"), exact.gelu(wide_rows, "tanh")),
        (fast.add_residual(rows, residual), exact.add_residual(wide_rows, wide_residual)),
        (fast.silu_mul(rows, fast_up, swiglu), exact.silu_mul(wide_rows, exact_up, swiglu)),
    ):
        assert actual.dtype == torch.bfloat16
        torch.testing.assert_close(actual.float(), expected, atol=0.02, rtol=0.01)
    assert torch.equal(fast.dense_weight(), dense.weight)


@needs_onednn
@pytest.mark.parametrize("weight_format", ["int8", "fp8"])
@torch.inference_mode()
def test_onednn_multiplies_the_dequantized_weights_in_larger_blocks(
    weight_format: WeightFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "onednn_is_faster", lambda dtype: dtype == torch.float32)
    blocks = torch.nn.Module()
    mlp = ChunkedMLP(16)
    blocks.layers = torch.nn.ModuleList([mlp])
    rows, residual = torch.randn(QUANTIZED_BLOCK_ROWS + 9, 16), torch.randn(QUANTIZED_BLOCK_ROWS + 9, 16)
    quantize_linears(blocks, weight_format)
    expected, expected_weight = mlp(rows, residual), mlp.gate_proj.dense_weight()
    use_onednn_linears(blocks)
    assert isinstance(mlp.gate_proj, OneDNNQuantizedLinear)
    assert mlp.block_rows == QUANTIZED_BLOCK_ROWS
    assert torch.equal(mlp.gate_proj.dense_weight(), expected_weight)
    torch.testing.assert_close(mlp(rows, residual), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 9))
@torch.inference_mode()
def test_row_blocks_have_the_largest_allowed_size_and_keep_the_order(
    num_rows: int, multiples: int, block_multiple: int
) -> None:
    module = ChunkedMLP(4)
    rows, residual = torch.randn(num_rows, 4), torch.randn(num_rows, 4)
    unchunked = module(rows, residual)
    block_rows = multiples * block_multiple
    module.block_rows, module.block_multiple = block_rows, block_multiple
    torch.testing.assert_close(module(rows, residual), unchunked)
    block_sizes: list[int] = []

    def record_size(block: Tensor) -> Tensor:
        block_sizes.append(len(block))
        return block

    assert torch.equal(module.map_row_blocks(record_size, rows), rows)
    assert sum(block_sizes) == num_rows
    assert all(size == block_rows for size in block_sizes[:-2])
    assert all(size % block_multiple == 0 for size in block_sizes[:-1])


@needs_onednn
@torch.inference_mode()
def test_onednn_replaces_only_layers_that_it_makes_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    num_rows = BLOCK_ROWS + BLOCK_MULTIPLE + 5
    rows, residual = torch.randn(num_rows, 4), torch.randn(num_rows, 4)
    float64_model = ChunkedMLP(4).double()
    model = ChunkedMLP(4)
    expected = model(rows, residual)
    monkeypatch.setattr(onednn, "onednn_is_faster", lambda _: False)
    use_onednn_linears(model)
    assert isinstance(model.gate_proj, Linear)
    monkeypatch.setattr(onednn, "onednn_is_faster", lambda dtype: dtype == torch.float32)
    use_onednn_linears(float64_model)
    assert isinstance(float64_model.gate_proj, Linear)
    use_onednn_linears(model)
    layer = model.gate_proj
    assert isinstance(layer, OneDNNLinear)
    assert (model.block_rows, model.block_multiple) == (BLOCK_ROWS, BLOCK_MULTIPLE)
    use_onednn_linears(model)
    assert model.gate_proj is layer
    torch.testing.assert_close(model(rows, residual), expected, atol=1e-5, rtol=1e-5)


def test_rotary_embedding_and_its_gradient_equal_the_reference() -> None:
    """The reference is `apply_rotary_pos_emb` of transformers; the input is a slice of a wider tensor, as in use."""
    wide = torch.randn(5, 3, 4, 8, dtype=torch.float64)
    angles = torch.randn(5, 4, dtype=torch.float64)
    values = wide[:, 1].requires_grad_()
    cos, sin = (torch.cat((half, half), dim=-1)[:, None] for half in (angles.cos(), angles.sin()))
    first_half, second_half = values.chunk(2, dim=-1)
    expected = values * cos + torch.cat((-second_half, first_half), dim=-1) * sin
    actual = apply_rotary(values, angles.cos(), angles.sin())
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        *(
            torch.autograd.grad(output.square().sum(), values, retain_graph=True)
            for output in (actual * 2, expected * 2)
        )
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_rms_norm_equals_the_reference(dtype: torch.dtype, tolerance: float) -> None:
    values = torch.randn(5, 3, 4, 8, dtype=torch.float64)[:, 1].requires_grad_()
    weight = torch.randn(8, dtype=torch.float64)
    expected = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + 1e-6) * weight
    actual = rms_norm(values.to(dtype), weight.to(dtype), 1e-6)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)
