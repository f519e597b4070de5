"""Vectors in smaller types, as Cohere and Voyage offer them.

| type | a vector of d values |
| --- | --- |
| `float` | d float32 |
| `int8`, `uint8` | d integers, from -128 or from 0 |
| `ubinary` | d / 8 integers from 0: the bits of eight values, the first as the highest; a value above 0 is 1 |
| `binary` | the same integers minus 128 (offset binary) |

The types, their ranges and the packing are those of https://docs.cohere.com/reference/embed and
https://docs.voyageai.com/docs/flexible-dimensions-and-quantization. Neither says how values become integers. Here it is
as `sentence_transformers.util.quantization.quantize_embeddings` (6.2) does it with given `ranges`: a value x becomes
floor((x - minimum) / step), at least 0 and at most 255, and for `int8` minus 128. The minimum is -128.5 steps, so that
`int8` is x / step, rounded: 0 stays 0, and products of such vectors are in proportion to the cosines.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qwen3vl_server.errors import RequestError

VectorType = Literal["float", "int8", "uint8", "binary", "ubinary"]

_RANGE_DEVIATIONS = 16.0
"""The values of a vector of length 1 have a standard deviation of about 1 / sqrt(d). The range is 16 of them on each
side, at most 1: hardly any value is beyond it, and cosines change by 0.003 for up to 256 values and 0.001 for 2048 (one
standard deviation). It depends on d alone, since vectors of different requests are compared; without `ranges`,
`quantize_embeddings` takes it from the vectors."""
_MAX_INT8 = 127
_OFFSET = 128
_BITS_PER_INTEGER = 8


def quantize_vectors(vectors: NDArray[np.float32], vector_type: VectorType) -> NDArray[Any]:
    """Convert vectors to a type.

    Args:
        vectors: Vectors of length 1, (n, d) float32.
        vector_type: The type.

    Returns:
        The vectors themselves for `float`; (n, d) int8 or uint8; (n, d / 8) int8 for `binary`, uint8 for `ubinary`.
    """
    if vector_type == "float":
        return vectors
    if vector_type in ("binary", "ubinary"):
        integers = np.packbits(vectors > 0, axis=1)
    else:
        step = min(1.0, _RANGE_DEVIATIONS / sqrt(vectors.shape[1])) / _MAX_INT8
        integers = np.clip(np.floor((vectors + (_OFFSET + 0.5) * step) / step), 0, 255).astype(np.uint8)
    if vector_type in ("uint8", "ubinary"):
        return integers
    return (integers.astype(np.int16) - _OFFSET).astype(np.int8)


def check_vector_types(vector_types: Iterable[str], dimensions: int | None) -> None:
    """Check that vectors have whole numbers of bytes.

    Args:
        vector_types: The types that are asked for.
        dimensions: The number of values that is asked for; None is the model's.

    Raises:
        RequestError: The bits of a vector would not fill its last integer.
    """
    if dimensions is not None and dimensions % _BITS_PER_INTEGER and not {"binary", "ubinary"}.isdisjoint(vector_types):
        raise RequestError(
            400,
            f"binary vectors have eight values in each integer, and {dimensions} values were asked for; ask for a "
            "multiple of eight",
            param="output_dimension",
        )
