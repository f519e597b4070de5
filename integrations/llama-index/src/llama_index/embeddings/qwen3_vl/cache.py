"""Keys under which embeddings are remembered: recipe, instruction and content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from qwen3vl.documents import file_digest
from qwen3vl.errors import InputError
from qwen3vl.inputs import Clip, Item, Picture, as_item
from qwen3vl.media import MediaPolicy


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
    """A digest of texts and of the bytes of media; None where a URL is among them."""
    told: list[Any] = [list(item.texts)]
    media: tuple[Picture | Clip, ...] = (*item.images, *item.videos)
    for medium in media:
        content = _medium(medium, policy)
        if content is None:
            return None
        told.append(content)
    return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()


def _medium(medium: Picture | Clip, policy: MediaPolicy) -> list[Any] | None:
    part: list[Any] = [medium.page] if isinstance(medium, Picture) else [medium.start, medium.end]
    if medium.where == "url":
        return None
    if medium.where == "path":
        return [file_digest(policy.check_path(medium.data)), *part]
    if medium.where == "bytes":
        return [hashlib.blake2b(medium.data, digest_size=16).hexdigest(), *part]
    if isinstance(medium, Clip):
        frames = [_medium(frame, policy) for frame in medium.frames]
        return None if None in frames else frames
    return [medium.data.mode, medium.data.size, hashlib.blake2b(medium.data.tobytes(), digest_size=16).hexdigest()]
