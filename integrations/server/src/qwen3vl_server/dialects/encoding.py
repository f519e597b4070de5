"""Arrays in JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")

EncodingFormat = Literal["float", "base64"]
_QUICK_VALUES = 8192
"""Number of values that the event loop writes itself: as JSON they take a few milliseconds."""


async def write_values(values: NDArray[Any], write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Write an answer here if that is quick, or else on a thread, off the event loop.

    Args:
        values: The values that are written.
        write: Writes them.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Returns:
        What it returns.
    """
    if values.size <= _QUICK_VALUES:
        return write(*args, **kwargs)
    return await asyncio.to_thread(write, *args, **kwargs)


def encode_base64(array: NDArray[Any]) -> str:
    """Encode an array.

    Args:
        array: Values of any shape and type.

    Returns:
        The base64 of its values, little-endian.
    """
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def write_rows(array: NDArray[Any], encoding_format: EncodingFormat = "float") -> list[str]:
    """Write the rows of an array as JSON. A thousand vectors take a tenth of a second; between rows, other threads run.

    Args:
        array: Values, (n, d).
        encoding_format: `"float"` writes a row as a list of numbers, `"base64"` as a string, as `encode_base64` does.

    Returns:
        The JSON of each row.
    """
    return [json.dumps(encode_base64(row) if encoding_format == "base64" else row.tolist()) for row in array]
