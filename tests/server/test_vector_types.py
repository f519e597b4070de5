"""Types of vectors: those of sentence-transformers, and what of the cosines they keep."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from qwen3vl_server.dialects.encoding import encode_base64
from qwen3vl_server.dialects.quantization import VectorType, quantize_vectors

ROWS = [[0.5, -0.5, 0.1, -0.1, 0.0, 0.3, -0.6, 0.2], [-0.02, 0.01, 0.9, -0.4, 1e-9, -1.0, 1.0, 0.003]]
# Computed once by `quantize_embeddings` of sentence-transformers 6.2, with `ranges` of -128.5 and 126.5 steps.
OF_8_VALUES = {
    "int8": [[64, -63, 13, -13, 0, 38, -76, 25], [-3, 1, 114, -51, 0, -127, 127, 0]],
    "uint8": [[192, 65, 141, 115, 128, 166, 52, 153], [125, 129, 242, 77, 128, 1, 255, 128]],
    "binary": [[37], [-21]],
    "ubinary": [[165], [107]],
}
OF_1024_VALUES = {
    "int8": [[127, -127, 25, -25, 0, 76, -128, 51], [-5, 3, 127, -102, 0, -128, 127, 1]],
    "uint8": [[255, 1, 153, 103, 128, 204, 0, 179], [123, 131, 255, 26, 128, 0, 255, 129]],
}


@pytest.mark.parametrize("vector_type", OF_8_VALUES)
def test_values_are_those_of_sentence_transformers(vector_type: VectorType) -> None:
    vectors = np.array(ROWS, dtype=np.float32)
    quantized = quantize_vectors(vectors, vector_type)
    assert quantized.dtype == (np.uint8 if vector_type.startswith("u") else np.int8)
    assert quantized.tolist() == OF_8_VALUES[vector_type]
    if vector_type in OF_1024_VALUES:
        quantized = quantize_vectors(np.tile(vectors, (1, 128)), vector_type)
        assert quantized.shape == (2, 1024)
        assert quantized[:, :8].tolist() == OF_1024_VALUES[vector_type]


@pytest.mark.parametrize(("dimensions", "deviation"), [(64, 0.0035), (256, 0.0035), (2048, 0.0012), (4096, 0.0009)])
def test_int8_vectors_have_nearly_the_same_cosines(dimensions: int, deviation: float) -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((100, dimensions)) * generator.gamma(2, size=dimensions)  # some values dominate
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    int8 = quantize_vectors(vectors.astype(np.float32), "int8").astype(np.float64)
    lengths = np.linalg.norm(int8, axis=1, keepdims=True)
    errors = int8 @ int8.T / (lengths * lengths.T) - vectors @ vectors.T
    assert errors.std() < deviation
    uint8 = quantize_vectors(vectors.astype(np.float32), "uint8")
    np.testing.assert_array_equal(uint8.astype(np.int16) - 128, int8)


@pytest.mark.parametrize("array", [np.array([1.5, -2.0], dtype=np.float32), np.array([-128, 127], dtype=np.int8)])
def test_base64_has_the_values_little_endian(array: Any) -> None:
    for stored in (array, array.astype(array.dtype.newbyteorder(">"))):
        decoded = np.frombuffer(base64.b64decode(encode_base64(stored)), dtype=array.dtype.newbyteorder("<"))
        np.testing.assert_array_equal(decoded, array)
