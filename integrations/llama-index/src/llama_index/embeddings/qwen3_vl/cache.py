"""Vectors that were made before, by recipe, instruction and content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen3vl.errors import InputError, ItemError
from qwen3vl.inputs import ImageReference, Item, VideoReference, as_item
from qwen3vl.media import MediaPolicy

if TYPE_CHECKING:
    from qwen3vl import Batch

COLLECTION = "qwen3vl"
"""Of the key-value store.  LlamaIndex's own collection has keys that do not tell a query from a document."""
Embedding = list[float]


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """Vectors in the order of the inputs, None where there is an error beside them."""

    vectors: list[Embedding | None]
    errors: list[ItemError]


def through(
    store: Any, inputs: Sequence[Any], embed: Callable[[list[Any]], Batch], key_of: Callable[[Any], str | None]
) -> EmbedResult:
    """Vectors from a key-value store, and from the model for those that it does not have; None is no store."""
    keys = [None if store is None else key_of(each) for each in inputs]
    found = [None if key is None else store.get(key, collection=COLLECTION) for key in keys]
    vectors: list[Embedding | None] = [None if each is None else each["embedding"] for each in found]
    missing = [place for place, vector in enumerate(vectors) if vector is None]
    batch = embed([inputs[place] for place in missing])
    for place, vector, good in zip(missing, batch.values.tolist(), batch.ok, strict=True):
        if good:
            vectors[place] = vector
            if (key := keys[place]) is not None:
                store.put(key, {"embedding": vector}, collection=COLLECTION)
    return EmbedResult(vectors, [error.at(missing[error.index]) for error in batch.errors])


def cache_key(value: Any, instruction: str, recipe: str, policy: MediaPolicy) -> str | None:
    """The key of an input's vector; None where its content is not known before it is fetched, or cannot be read."""
    try:
        item = as_item(value)
        content = content_digest(item, policy)
    except (InputError, OSError):
        return None
    if content is None:
        return None
    told = [recipe, item.instruction or instruction, content, item.fps, item.max_frames]
    return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()


def content_digest(item: Item, policy: MediaPolicy) -> str | None:
    """A digest of texts and of the bytes of media; None where a URL is among them.

    Raises `InputError` where the policy does not allow a file, or it cannot be read.
    """
    told: list[Any] = [list(item.texts)]
    media: tuple[ImageReference | VideoReference, ...] = (*item.images, *item.videos)
    for medium in media:
        content = _medium(medium, policy)
        if content is None:
            return None
        told.append(content)
    return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()


def _medium(medium: ImageReference | VideoReference, policy: MediaPolicy) -> list[Any] | None:
    from qwen3vl.hashing import bytes_digest
    from qwen3vl.media.images import rgb
    from qwen3vl.media.source import check_bytes, check_file, content_digest

    part: list[Any] = [medium.page] if isinstance(medium, ImageReference) else [medium.start, medium.end]
    if medium.origin == "url":
        return None
    if medium.origin == "path":
        return [content_digest(check_file(policy.check_path(medium.data), policy)), *part]
    if medium.origin == "bytes":
        return [bytes_digest(check_bytes(medium.data, policy)), *part]
    if isinstance(medium, VideoReference):
        frames = [_medium(frame, policy) for frame in medium.frames]
        return None if None in frames else frames
    return [medium.data.size, bytes_digest(rgb(medium.data).tobytes())]
