"""Linear layers give the same whatever their weights lie as, and whatever blocks they are applied to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qwen3vl.model.layers import onednn
from qwen3vl.model.layers.elementwise import gate, norm, rotate
from qwen3vl.model.layers.linear import Linear, RowChunked
from qwen3vl.model.layers.onednn import MOST, STEP, OneDNNLinear, use_onednn_linears

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch is built without oneDNN"
)


class Both(RowChunked):
    """A layer's two halves of work: some tensors of rows, and one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.other = Linear(width, 3 * width), Linear(width, 3 * width, bias=False)

    def forward(self, rows: Tensor, residual: Tensor) -> Tensor:
        one, other = self.map_row_blocks(self._both, rows)
        return self.map_row_blocks(self._sum, one, other, residual)

    def _both(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.one.gelu(rows), self.one.silu_mul(rows, self.other, gate)

    def _sum(self, one: Tensor, other: Tensor, residual: Tensor) -> Tensor:
        return self.one.plus(residual, one + other)


@needs_onednn
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 40), st.booleans())
@torch.inference_mode()
def test_reordered_weights(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(rows)
    plain, other = Linear(inputs, outputs, bias=bias), Linear(inputs, outputs, bias=False)
    fast, fast_other = OneDNNLinear(plain), OneDNNLinear(other)
    given_rows, residual = torch.randn(rows, inputs), torch.randn(rows, outputs)
    for found, wanted in (
        (fast(given_rows), plain(given_rows)),
        (fast.gelu(given_rows), plain.gelu(given_rows)),
        (fast.gelu(given_rows, "tanh"), plain.gelu(given_rows, "tanh")),
        (fast.plus(given_rows, residual), plain.plus(given_rows, residual)),
        (fast.silu_mul(given_rows, fast_other, gate), plain.silu_mul(given_rows, other, gate)),
        (fast.silu_mul(given_rows, other, gate), plain.silu_mul(given_rows, other, gate)),
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(fast.matrix(), plain.weight)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 9))
@torch.inference_mode()
def test_blocks(count: int, most: int, step: int) -> None:
    """Blocks are as large as they may be, and the rows come out in their order."""
    work = Both(4)
    rows, residual = torch.randn(count, 4), torch.randn(count, 4)
    whole = work(rows, residual)
    work.most, work.step = most * step, step
    torch.testing.assert_close(work(rows, residual), whole)
    sizes: list[int] = []

    def itself(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return part

    assert torch.equal(work.map_row_blocks(itself, rows), rows)
    assert sum(sizes) == count
    assert all(size == most * step for size in sizes[:-2])
    assert all(size % step == 0 for size in sizes[:-1])


@needs_onednn
@torch.inference_mode()
def test_a_model_is_reordered_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, residual = torch.randn(MOST + STEP + 5, 4), torch.randn(MOST + STEP + 5, 4)
    wide = Both(4).double()
    model = Both(4)
    wanted = model(rows, residual)
    monkeypatch.setattr(onednn, "onednn_is_faster", lambda: False)
    use_onednn_linears(model)
    assert isinstance(model.one, Linear)
    monkeypatch.setattr(onednn, "onednn_is_faster", lambda: True)
    use_onednn_linears(wide)
    assert isinstance(wide.one, Linear)
    use_onednn_linears(model)
    layer = model.one
    assert isinstance(layer, OneDNNLinear)
    assert (model.most, model.step) == (MOST, STEP)
    use_onednn_linears(model)
    assert model.one is layer
    torch.testing.assert_close(model(rows, residual), wanted, atol=1e-5, rtol=1e-5)


def test_norms_and_positions() -> None:
    """As the reference writes them out, and the same for rows cut from wider ones; with gradients."""
    wide = torch.randn(5, 3, 4, 8, dtype=torch.float64)
    angles = torch.randn(5, 4, dtype=torch.float64)
    weight = torch.randn(8, dtype=torch.float64)
    values = wide[:, 1].requires_grad_()
    cos, sin = (torch.cat((each, each), dim=-1)[:, None] for each in (angles.cos(), angles.sin()))
    halves = values.chunk(2, dim=-1)
    wanted = values * cos + torch.cat((-halves[1], halves[0]), dim=-1) * sin
    found = rotate(values, angles.cos(), angles.sin())
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        *(torch.autograd.grad(each.square().sum(), values, retain_graph=True) for each in (found * 2, wanted * 2))
    )
    plain = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + 1e-6) * weight
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        found = norm(values.to(dtype), weight.to(dtype), 1e-6)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), plain, atol=tolerance, rtol=tolerance)
