"""8-bit weights and compiled elementwise functions give results close to the exact ones, from models of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl import Embedder, Reranker
from qwen3vl.model.layers.compilation import compile_or_eager
from qwen3vl.model.layers.elementwise import Elementwise
from qwen3vl.model.layers.linear import Linear
from qwen3vl.model.layers.onednn import supports_bfloat16
from qwen3vl.model.layers.quantized import Float8Linear, Int8Linear, WeightFormat, quantize_rows, quantize_weight
from tests.conftest import CASES, REFERENCE, resolve
from tests.test_golden import EMBED, check, expected_vector


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["int8", "fp8"]), st.integers(1, 9), st.integers(1, 40), st.integers(-30, 30))
def test_quantized_values_are_within_half_a_step(
    weight_format: WeightFormat, num_rows: int, num_columns: int, exponent: int
) -> None:
    """Each row has its own scale, whatever its magnitude; zeros stay zeros."""
    values = torch.randn(num_rows, num_columns) * torch.logspace(-3, 3, num_rows)[:, None] * 2.0**exponent
    values[0, 0] = 0
    quantized, scale = quantize_rows(values, weight_format)
    assert quantized.element_size() == 1
    row_max = values.abs().amax(1, keepdim=True)
    half_step = row_max / 127 / 2 if weight_format == "int8" else torch.maximum(values.abs() / 16, row_max / 448 / 2)
    assert ((quantized.float() * scale - values).abs() <= half_step * 1.01).all()
    assert float(quantized.float()[0, 0]) == 0
    assert quantize_rows(torch.zeros(2, 3), weight_format)[0].float().abs().sum() == 0


@pytest.mark.parametrize(("in_features", "group_size"), [(64, 32), (4304, 16), (7, 1)])
def test_groups_of_int8_weights_have_scales_of_their_own(in_features: int, group_size: int) -> None:
    weight = torch.randn(3, in_features)
    weight[:, :group_size] *= 100
    _, scale = quantize_weight(weight, "int8")
    assert scale.shape == (3, in_features // group_size)
    expected = weight.view(3, -1, group_size).abs().amax(2) / 127
    torch.testing.assert_close(scale, expected)
    dense = Linear(in_features, 3, bias=False)
    dense.weight.data = weight
    error = (Int8Linear(dense).dense_weight() - weight).abs()
    assert (error <= scale.repeat_interleave(group_size, 1) * 0.51).all()
    assert quantize_weight(weight, "fp8")[1].shape == (3, 1)


def num_bytes(embedder: Embedder) -> int:
    """Memory of the language model's layers."""
    tensors = embedder.engine.model.language_model.layers.state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "min_cosine", "max_score_error"), [("int8", 0.997, 0.05), ("fp8", 0.95, 0.15)])
def test_quantized_golden_results_are_close_to_the_reference(
    dtype: str,
    min_cosine: float,
    max_score_error: float,
    checkpoints: Path,
    media: dict[str, Path],
    golden_embedder: Embedder,
) -> None:
    quantized = Embedder(checkpoints / "embedding", device="cpu", dtype=dtype)
    vectors = quantized.embed([resolve(CASES["embed"][name], media) for name in EMBED])
    cosines = {name: float(vector @ expected_vector(name)) for name, vector in zip(EMBED, vectors, strict=True)}
    assert min(cosines.values()) > min_cosine, cosines
    assert max(cosines.values()) < 0.9999999  # something was quantized
    assert quantized.engine.model is not golden_embedder.engine.model
    # A scale for every 32 weights has the dtype of the activations: 2 bytes, or 4 without instructions for bfloat16.
    assert num_bytes(quantized) < num_bytes(golden_embedder) * (0.27 if supports_bfloat16() else 0.29)
    case = CASES["rerank"]["text-query-mixed-documents"]
    scores = Reranker(checkpoints / "reranker", device="cpu", dtype=dtype).score(
        case["query"],
        [resolve(document, media) for document in case["documents"]],
        instruction=case["instruction"],
    )
    expected_scores = REFERENCE["rerank"]["text-query-mixed-documents"]["scores"]
    np.testing.assert_allclose(scores, expected_scores, atol=max_score_error)


def test_quantized_tiny_model_ranks_every_text_next_to_itself(tiny_embedder: Embedder) -> None:
    from qwen3vl.demo.scenes import COLOURS, SHAPES

    texts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    exact = tiny_embedder.embed(texts)
    for dtype in ("int8", "fp8"):
        quantized = Embedder("tiny", device="cpu", dtype=dtype).embed(texts)
        assert (np.argmax(quantized @ exact.T, axis=1) == np.arange(len(texts))).all()


@pytest.mark.parametrize("bias", [True, False])
def test_quantized_products_are_close_to_dense_ones(bias: bool) -> None:
    """`fp8_matmul` quantizes the rows as well, as it does on Hopper GPUs."""
    dense = Linear(64, 32, bias=bias)
    rows = torch.randn(7, 64) * torch.logspace(-2, 2, 7)[:, None]
    with torch.inference_mode():
        float8 = Float8Linear(dense)
        expected = dense(rows)
        assert float((float8(rows) - expected).norm() / expected.norm()) < 0.04
        assert float((float8.fp8_matmul(rows) - expected).norm() / expected.norm()) < 0.06
        assert float((Int8Linear(dense)(rows) - expected).norm() / expected.norm()) < 0.02


def test_unknown_dtype_is_a_value_error(checkpoints: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype is 'int4'; it may be auto, .*int8 or fp8"):
        Embedder(checkpoints / "embedding", device="cpu", dtype="int4")


@pytest.mark.slow
def test_compiled_embedder_equals_the_reference(
    checkpoints: Path, media: dict[str, Path], golden_embedder: Embedder
) -> None:
    """Without a compiler on the machine, the eager functions are used."""
    embedder = Embedder(checkpoints / "embedding", device="cpu", compiled=True)
    assert embedder.engine.model is not golden_embedder.engine.model
    check("image-page", embedder.embed(resolve(CASES["embed"]["image-page"], media))[0])


def test_function_that_cannot_be_compiled_runs_eagerly_with_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_compile(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", failing_compile)

    def double(values: torch.Tensor) -> torch.Tensor:
        return values * 2

    module = Elementwise(double)
    module.function = compile_or_eager(double)
    assert module(torch.ones(2)).tolist() == [2, 2]
    assert module(torch.ones(2)).tolist() == [2, 2]
    assert caplog.text.count("double is not compiled: no compiler here") == 1
