"""The body of requests in the server's own dialect, which its client and the server share.

A request is JSON, or JSON in one line with the contents of media behind it, as they are, one after the other. The JSON
then has their sizes under `contents`. Items refer to contents by digest, whether these are in the same request or the
server has them from an earlier one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEDIA_TYPE = "application/vnd.qwen3vl.request"
"""Content type of a request that has contents behind its JSON."""
MISSING_CONTENTS = "missing_contents"
"""Code of the error of a request that refers to contents which the server lacks; `missing` has their digests."""
OTHER_RECIPE = "other_recipe"
"""Code of the error of a request that another model is meant to answer; `recipe` has that of the server's."""
TIMED_OUT = "timeout"
"""Code of the error of a request whose answer took longer than the server allows: one with fewer items may not."""
QUERY_ROLE = "query "
"""What stands before the names of a query's media, which can be at fault for the failure of a document."""
INVALID_QUERY = "invalid_query"
"""Code of the error of a reranking whose query cannot be used; `failure` has what an item's failure has."""


def digest_of(content: bytes) -> str:
    """Return the digest by which requests refer to a content: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{sha256(content).hexdigest()}"


def media_name(role: str, kind: str, index: int) -> str:
    """Return the name of an item's image or video in the server's errors; its real name stays with the client.

    Args:
        role: `QUERY_ROLE` for those of a query, else empty.
        kind: `"image"` or `"video"`.
        index: Which of them.

    Returns:
        A name such as `image 0`.
    """
    return f"{role}{kind} {index}"


def encode_request(body: str, contents: Iterable[bytes]) -> bytes:
    """Encode a request.

    Args:
        body: A JSON object in one line, in ASCII.
        contents: Contents of media.

    Returns:
        The body of a request of type `MEDIA_TYPE`.
    """
    contents = list(contents)
    sizes = json.dumps(list(map(len, contents)))
    separator = "," if body[1:-1].strip() else ""
    return b"".join((f'{body[:-1]}{separator}"contents":{sizes}}}\n'.encode(), *contents))


def decode_request(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Decode what `encode_request` returned.

    Args:
        data: The body of a request of type `MEDIA_TYPE`.

    Returns:
        The JSON object, without `contents`, and the contents by their digests.

    Raises:
        ValueError: The first line is no JSON object, or the sizes are not those of what follows.
    """
    end = data.find(b"\n")
    body = json.loads(data[: len(data) if end < 0 else end])
    if not isinstance(body, dict):
        raise ValueError("its first line is not a JSON object")
    sizes = body.pop("contents", [])
    start = end + 1 if end >= 0 else len(data)
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("contents is not a list of sizes")
    if sum(sizes) != len(data) - start:
        raise ValueError(f"contents has sizes of {sum(sizes)} bytes together, and {len(data) - start} bytes follow")
    contents = {}
    for size in sizes:
        content = data[start : start + size]
        contents[digest_of(content)] = content
        start += size
    return body, contents


def decode_array(encoded: str, shape: Iterable[int]) -> NDArray[np.float32]:
    """Decode an array in an answer.

    Args:
        encoded: The base64 of its values as float32, little-endian.
        shape: Their shape.

    Returns:
        An array of its own memory, float32.

    Raises:
        ValueError: The shape does not fit the values.
    """
    return np.frombuffer(base64.b64decode(encoded), dtype="<f4").reshape(tuple(shape)).astype(np.float32)
