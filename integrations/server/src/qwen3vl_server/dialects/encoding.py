"""Arrays in JSON."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray


def encode_base64(array: NDArray[np.float32]) -> str:
    """Encode an array.

    Args:
        array: Values of any shape.

    Returns:
        The base64 of its values as float32, little-endian.
    """
    return base64.b64encode(array.astype("<f4").tobytes()).decode()
