"""A cache of vectors in a key-value store, by recipe, instruction and content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.embeddings.qwen3_vl.results import Embedding, EmbedResult

from qwen3vl.errors import InputError
from qwen3vl.inputs import ImageReference, Item, VideoReference, as_item
from qwen3vl.media import MediaPolicy

if TYPE_CHECKING:
    from qwen3vl import Batch

COLLECTION = "qwen3vl"
"""Collection of the key-value store. LlamaIndex's own collection uses equal keys for queries and documents."""


class CachedInputs:
    """Inputs with the vectors that a key-value store has for them. All of it may block: files are read for the keys.

    Args:
        store: A LlamaIndex key-value store, or None, which has no vectors.
        inputs: Inputs as `Embedder.embed` accepts them.
        key_of: Returns the key of an input, or None if it cannot be cached.

    Attributes:
        missing: The inputs that have to be embedded.

    Example:
        ```python
        from llama_index.core.storage.kvstore import SimpleKVStore
        from llama_index.embeddings.qwen3_vl.cache import CachedInputs
        from qwen3vl import Embedder

        embedder, store = Embedder("tiny"), SimpleKVStore()
        for _ in range(2):
            cached = CachedInputs(store, ["a red circle"], lambda text: text)
            result = cached.complete(embedder.embed(cached.missing, on_error="collect"))
        assert cached.missing == []
        assert len(result.vectors) == 1
        ```
    """

    def __init__(self, store: Any, inputs: Sequence[Any], key_of: Callable[[Any], str | None]) -> None:
        self._store = store
        self._keys = [None if store is None else key_of(value) for value in inputs]
        entries = [None if key is None else store.get(key, collection=COLLECTION) for key in self._keys]
        self._vectors: list[Embedding | None] = [None if entry is None else entry["embedding"] for entry in entries]
        self._missing = [index for index, vector in enumerate(self._vectors) if vector is None]
        self.missing = [inputs[index] for index in self._missing]

    def complete(self, batch: Batch) -> EmbedResult:
        """Add the vectors of the missing inputs, and store them.

        Args:
            batch: Vectors and errors of `missing`.

        Returns:
            Vectors and errors in the order of the inputs.
        """
        for index, vector, ok in zip(self._missing, batch.values.tolist(), batch.ok, strict=True):
            if ok:
                self._vectors[index] = vector
                if (key := self._keys[index]) is not None:
                    self._store.put(key, {"embedding": vector}, collection=COLLECTION)
        return EmbedResult(self._vectors, [error.at(self._missing[error.index]) for error in batch.errors])


def cache_key(value: Any, instruction: str, recipe: str, policy: MediaPolicy) -> str | None:
    """Return the key under which an input's vector is stored.

    Args:
        value: An input as `Embedder.embed` accepts it.
        instruction: The instruction, for inputs that have none of their own.
        recipe: Digest of the model's recipe.
        policy: Which files may be read for their digest.

    Returns:
        A hexadecimal SHA-256 digest; None if the input has a URL, whose content is unknown before it is fetched, or
        if it cannot be read.
    """
    try:
        item = as_item(value)
        digest = item_digest(item, policy)
    except (InputError, OSError):
        return None
    if digest is None:
        return None
    parts = [recipe, item.instruction or instruction, digest, item.fps, item.max_frames]
    return _json_digest(parts)


def item_digest(item: Item, policy: MediaPolicy) -> str | None:
    """Return the digest of an input's texts and of the bytes of its media.

    Args:
        item: The input.
        policy: Which files may be read.

    Returns:
        A hexadecimal SHA-256 digest; None if a URL is among the media.

    Raises:
        InputError: The policy does not allow a file, or a file is broken.
        OSError: A file cannot be read.
    """
    parts: list[Any] = [list(item.texts)]
    media: tuple[ImageReference | VideoReference, ...] = (*item.images, *item.videos)
    for reference in media:
        part = _media_parts(reference, policy)
        if part is None:
            return None
        parts.append(part)
    return _json_digest(parts)


def _media_parts(reference: ImageReference | VideoReference, policy: MediaPolicy) -> list[Any] | None:
    """Return what identifies the content of an image or video as JSON values; None for a URL."""
    from qwen3vl.hashing import bytes_digest
    from qwen3vl.media.images import rgb
    from qwen3vl.media.source import check_bytes, check_file, content_digest

    section: list[Any]
    section = [reference.page] if isinstance(reference, ImageReference) else [reference.start, reference.end]
    if reference.origin == "url":
        return None
    if reference.origin == "path":
        return [content_digest(check_file(policy.check_path(reference.data), policy)), *section]
    if reference.origin == "bytes":
        return [bytes_digest(check_bytes(reference.data, policy)), *section]
    if isinstance(reference, VideoReference):
        frames = [_media_parts(frame, policy) for frame in reference.frames]
        return None if None in frames else frames
    return [reference.data.size, bytes_digest(rgb(reference.data).tobytes())]


def _json_digest(parts: list[Any]) -> str:
    # Texts may hold lone surrogates, which plain UTF-8 cannot encode.
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()
