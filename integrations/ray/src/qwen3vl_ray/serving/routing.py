"""The key by which items are routed, so that the replica gets them that has encoded their images and videos before."""

from __future__ import annotations

from hashlib import blake2b

from qwen3vl.inputs import ImageReference, Item, VideoReference

_SAMPLE_BYTES = 16 * 2**10
"""Bytes at either end of a file that are hashed. The key decides where an item is computed, and nothing else."""


def content_key(item: Item, query: Item | None = None) -> str:
    """Return the key of an item.

    Args:
        item: The item.
        query: What it is scored against, if anything.

    Returns:
        A key of the item's first video or image; without any, of the query's; empty for texts, which any replica may
        get. It is the same in all processes.
    """
    for media in (item.videos, item.images, *((query.videos, query.images) if query else ())):
        if media:
            return _reference_key(media[0])
    return ""


def _reference_key(reference: ImageReference | VideoReference) -> str:
    if isinstance(reference, VideoReference):
        if reference.frames:
            return _reference_key(reference.frames[0])
        part = f"{reference.start},{reference.end}"
    else:
        part = str(reference.page)
    data = reference.data
    if isinstance(data, str):
        return f"{data}#{part}"
    if not isinstance(data, bytes):  # pixels
        return ""
    digest = blake2b(data[:_SAMPLE_BYTES], digest_size=16)
    digest.update(data[-_SAMPLE_BYTES:])
    return f"{len(data)}-{digest.hexdigest()}#{part}"
