"""References to media in the metadata of other frameworks' documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qwen3vl.documents import Document
from qwen3vl.errors import InputError


@dataclass(frozen=True, slots=True)
class MediaKeys:
    """Metadata under which documents carry references to media: a path, a URL or a data URI, as str.

    Of several keys the first that a document has counts.
    """

    image: tuple[str, ...] = ("image",)
    video: tuple[str, ...] = ("video",)

    def __post_init__(self) -> None:
        for name in ("image", "video"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))


DEFAULT_KEYS = MediaKeys()


def document_from_metadata(text: str, metadata: Mapping[str, Any], keys: MediaKeys = DEFAULT_KEYS) -> Document:
    """The document that a text and metadata are; `Document.to_payload`'s come back as they were.

    Raises `InputError` where a reference is not a str.
    """
    media = {"image": _reference(metadata, keys.image), "video": _reference(metadata, keys.video)}
    own = {
        key: str(metadata[key]) for key in ("source", "locator", "content_hash", "place", "content") if key in metadata
    }
    # Only our own loaders say so; the key may mean anything in metadata of others.
    fused = metadata.get("fused") is not False
    told = {**metadata, **media, **own, "fused": fused}
    return Document.from_payload({"page_content": text, "metadata": told})


def _reference(metadata: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    for key in keys:
        value = metadata.get(key)
        if isinstance(value, str):
            if value:
                return value
        elif value is not None:
            raise InputError(
                f"its metadata {key!r} is of type {type(value).__name__}; "
                "a media reference is a str: a path, a URL or a data URI"
            )
    return None
