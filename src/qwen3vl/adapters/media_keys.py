"""Media references in the metadata of other frameworks' documents."""

from __future__ import annotations

import logging
import mimetypes
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from qwen3vl.adapters.encoded_images import image_data_uri
from qwen3vl.documents import Document
from qwen3vl.errors import InputError

logger = logging.getLogger(__name__)
_WORDS_OF_MEDIA_KEYS = ("image", "img", "picture", "photo", "video", "movie", "clip", "media")
"""A metadata key that contains one of them may be meant as the key of a media reference."""


@dataclass(frozen=True, slots=True)
class MediaKeys:
    """Metadata keys under which documents carry media references: a path, a URL or a data URI, as str.

    If a document has several of the keys, the first one that is set counts.

    Attributes:
        image: Keys of image references: a str or a sequence of them, kept as a tuple.
        video: Keys of video references: a str or a sequence of them, kept as a tuple.

    Example:
        ```python
        MediaKeys(image=["photo", "image_url"], video="clip")
        ```
    """

    image: str | Sequence[str] = ("image",)
    video: str | Sequence[str] = ("video",)

    def __post_init__(self) -> None:
        for name in ("image", "video"):
            keys = getattr(self, name)
            object.__setattr__(self, name, (keys,) if isinstance(keys, str) else tuple(keys))


DEFAULT_KEYS = MediaKeys()
"""The keys that `Document.to_payload` writes."""


def document_from_metadata(text: str, metadata: Mapping[str, Any], keys: MediaKeys = DEFAULT_KEYS) -> Document:
    """Return the `Document` of a text and metadata.

    The text and metadata that `Document.to_payload` writes, or wrote in former versions, give back that document. A
    text that is the base64 of an image, as LangChain's `Chroma.add_images` writes it, is the document's image.

    Args:
        text: The text of the other framework's document.
        metadata: Its metadata. Media references are read under `keys`, the fields of `Document` under their names
            and former names; the others become the document's `metadata`.
        keys: Metadata keys of media references.

    Returns:
        The document. Its text is embedded together with its media unless the metadata say `fused: False`.

    Raises:
        InputError: A media reference is not a str.
    """
    encoded_image = image_data_uri(text)
    fields: dict[str, Any] = {
        "image": encoded_image or _media_reference(metadata, keys.image),
        "video": _media_reference(metadata, keys.video),
    }
    if fields["image"] is None and fields["video"] is None:
        _report_ignored_references(metadata, keys)
    # In metadata that others wrote, "fused" may mean anything; this package's loaders write False.
    fields["fused"] = metadata.get("fused") is not False
    return Document.from_payload({"page_content": "" if encoded_image else text, "metadata": {**metadata, **fields}})


def has_media(metadata: Mapping[str, Any], keys: MediaKeys = DEFAULT_KEYS) -> bool:
    """Return whether metadata hold a media reference, of any type.

    Args:
        metadata: Metadata of another framework's document.
        keys: Metadata keys of media references.

    Returns:
        Whether one of the keys has a value that is neither None nor empty.
    """
    return any(metadata.get(key) for key in (*keys.image, *keys.video))


def _media_reference(metadata: Mapping[str, Any], keys: Iterable[str]) -> str | None:
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


def _report_ignored_references(metadata: Mapping[str, Any], keys: MediaKeys) -> None:
    """Log metadata that look like media references under keys that are not read, once for each key."""
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, (str, Path)):
            continue
        if key not in (*keys.image, *keys.video) and any(word in key.lower() for word in _WORDS_OF_MEDIA_KEYS):
            path, *_ = re.split("[?#]", str(value), maxsplit=1)
            kind = (mimetypes.guess_type(path, strict=False)[0] or "").partition("/")[0]
            if kind in ("image", "video"):
                _report_ignored_key(key, kind, tuple(getattr(keys, kind)))


@lru_cache(maxsize=256)
def _report_ignored_key(key: str, kind: str, read: tuple[str, ...]) -> None:
    logger.warning(
        "metadata %r looks like a reference to %s, and is ignored, because such references are read from %s only: "
        "pass media_keys=MediaKeys(%s=%r) to the embeddings and the reranker (keys=, to functions that convert "
        "documents), or rename the metadata",
        key,
        "an image" if kind == "image" else "a video",
        ", ".join(map(repr, read)) or "no key",
        kind,
        (*read, key),
    )
