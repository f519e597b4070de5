"""Write requests of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qwen3vl.stores.types import Point

Payload = dict[str, Any]
MAX_REQUEST_BYTES = 8 * 2**20
"""Approximate limit of a write request in bytes: a quarter of what servers accept (32 MiB)."""
FLOAT_JSON_BYTES = 22
"""Maximum number of bytes of one float in JSON, with its separator."""


def split_points(
    points: Sequence[Point],
    to_payload: Callable[[Point], Payload],
    request_bytes: Callable[[Point, Payload], int],
    *,
    max_points: int,
    max_bytes: int,
) -> Iterator[tuple[list[Point], list[Payload]]]:
    """Split points into batches that fit into one request each.

    Args:
        points: The points.
        to_payload: Returns what is stored beside a point's vector.
        request_bytes: Returns the size of a point and its payload in a request, in bytes.
        max_points: Maximum number of points of a batch.
        max_bytes: Maximum size of a batch, except that one point is always allowed.

    Yields:
        Points and their payloads.
    """
    batch: list[Point] = []
    payloads: list[Payload] = []
    batch_bytes = 0
    for point in points:
        payload = to_payload(point)
        size = request_bytes(point, payload)
        if batch and (batch_bytes + size > max_bytes or len(batch) == max_points):
            yield batch, payloads
            batch, payloads, batch_bytes = [], [], 0
        batch.append(point)
        payloads.append(payload)
        batch_bytes += size
    if batch:
        yield batch, payloads
