"""Media references in the metadata of other frameworks' documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen3vl.adapters.encoded_images import image_data_uri
from qwen3vl.documents import FORMER_KEYS, Document, has_former_keys
from qwen3vl.errors import InputError

_STRING_FIELDS = ("source", "locator", "content_hash")
"""Metadata keys that hold string fields of a `Document`."""


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
    string_fields = (*_STRING_FIELDS, *FORMER_KEYS.values()) if has_former_keys(metadata) else _STRING_FIELDS
    fields: dict[str, Any] = {key: str(metadata[key]) for key in string_fields if key in metadata}
    encoded_image = image_data_uri(text)
    fields["image"] = encoded_image or _media_reference(metadata, keys.image)
    fields["video"] = _media_reference(metadata, keys.video)
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
