"""Weights of eight bits, and compiled elementwise work: near, and told apart from the exact ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl import Embedder, Reranker
from qwen3vl.model.layers.elementwise import Elementwise, _compiled
from qwen3vl.model.layers.linear import Linear
from qwen3vl.model.layers.quantized import Float8, Quantized, WeightFormat, quantize_rows
from tests.conftest import CASES, REFERENCE, resolve
from tests.test_golden import EMBED, check, expected_vector


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["int8", "fp8"]), st.integers(1, 9), st.integers(1, 40), st.integers(-30, 30))
def test_packing(bits: WeightFormat, rows: int, width: int, exponent: int) -> None:
    """Within half a step of eight bits, a row at a time, whatever its size; zeros stay zeros."""
    values = torch.randn(rows, width) * torch.logspace(-3, 3, rows)[:, None] * 2.0**exponent
    values[0, 0] = 0
    narrow, scale = quantize_rows(values, bits)
    assert narrow.element_size() == 1
    largest = values.abs().amax(1, keepdim=True)
    step = largest / 127 / 2 if bits == "int8" else torch.maximum(values.abs() / 16, largest / 448 / 2)
    assert ((narrow.float() * scale - values).abs() <= step * 1.01).all()
    assert float(narrow.float()[0, 0]) == 0
    assert quantize_rows(torch.zeros(2, 3), bits)[0].float().abs().sum() == 0


@pytest.mark.parametrize(("bits", "least", "most"), [("int8", 0.998, 0.05), ("fp8", 0.95, 0.15)])
def test_golden_answers_are_near(
    bits: str, least: float, most: float, checkpoints: Path, media: dict[str, Path], golden_embedder: Embedder
) -> None:
    narrow = Embedder(checkpoints / "embedding", device="cpu", dtype=bits)
    vectors = narrow.embed([resolve(CASES["embed"][name], media) for name in EMBED])
    cosines = {name: float(vector @ expected_vector(name)) for name, vector in zip(EMBED, vectors, strict=True)}
    assert min(cosines.values()) > least, cosines
    assert max(cosines.values()) < 0.9999999  # something was narrowed
    assert narrow.engine.model is not golden_embedder.engine.model
    kept, plain = (
        sum(each.numel() * each.element_size() for each in one.engine.model.language_model.layers.state_dict().values())
        for one in (narrow, golden_embedder)
    )
    assert kept < plain * 0.27
    case = CASES["rerank"]["text-query-mixed-documents"]
    scores = Reranker(checkpoints / "reranker", device="cpu", dtype=bits).score(
        case["query"],
        [resolve(document, media) for document in case["documents"]],
        instruction=case["instruction"],
    )
    np.testing.assert_allclose(scores, REFERENCE["rerank"]["text-query-mixed-documents"]["scores"], atol=most)


def test_the_tiny_pair_finds_the_same(tiny_embedder: Embedder) -> None:
    from qwen3vl.demo.scenes import COLOURS, SHAPES

    texts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    exact = tiny_embedder.embed(texts)
    for bits in ("int8", "fp8"):
        near = Embedder("tiny", device="cpu", dtype=bits).embed(texts)
        assert (np.argmax(near @ exact.T, axis=1) == np.arange(len(texts))).all()


@pytest.mark.parametrize("bias", [True, False])
def test_products_of_eight_bit_floats(bias: bool) -> None:
    """Both sides of the product in eight bits, as Hopper multiplies them, against wide ones."""
    plain = Linear(64, 32, bias=bias)
    rows = torch.randn(7, 64) * torch.logspace(-2, 2, 7)[:, None]
    with torch.inference_mode():
        narrow = Float8(plain)
        exact = plain(rows)
        assert float((narrow(rows) - exact).norm() / exact.norm()) < 0.04
        assert float((narrow.scaled(rows) - exact).norm() / exact.norm()) < 0.06
        assert float((Quantized(plain)(rows) - exact).norm() / exact.norm()) < 0.02


def test_unknown_dtype(checkpoints: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype is 'int4'; it may be auto, .*int8 or fp8"):
        Embedder(checkpoints / "embedding", device="cpu", dtype="int4")


def test_compiled(checkpoints: Path, media: dict[str, Path], golden_embedder: Embedder) -> None:
    """The official answers again; where there is no compiler, by the plain functions."""
    embedder = Embedder(checkpoints / "embedding", device="cpu", compiled=True)
    assert embedder.engine.model is not golden_embedder.engine.model
    check("image-page", embedder.embed(resolve(CASES["embed"]["image-page"], media))[0])


def test_what_cannot_be_compiled_stays_plain(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", broken)

    def double(values: torch.Tensor) -> torch.Tensor:
        return values * 2

    part = Elementwise(double)
    part.function = _compiled(double)
    assert part(torch.ones(2)).tolist() == [2, 2]
    assert part(torch.ones(2)).tolist() == [2, 2]
    assert caplog.text.count("double is not compiled: no compiler here") == 1
