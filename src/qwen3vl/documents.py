"""Documents: what is loaded, indexed and found, with text, media references and their source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID, uuid5

from qwen3vl._deprecation import deprecated_alias, renamed_arguments
from qwen3vl.hashing import text_digest
from qwen3vl.inputs import shorten
from qwen3vl.recipe import Recipe

Kind = Literal["picture", "page", "clip", "text"]

RESERVED = frozenset({"source", "locator", "kind", "content_hash", "image", "video", "fused"})
"""Keys of stored metadata that hold a document's own fields."""
FORMER_KEYS = {"locator": "place", "content_hash": "content"}
"""The former names of two of these keys. Earlier versions wrote both; metadata with only one of them are others'."""
_PAGE_LOCATOR = re.compile(r"page=(?P<page>\d{1,18})")
_TIME_LOCATOR = re.compile(r"t=(?P<start>\d+(?:\.\d+)?),(?P<end>\d+(?:\.\d+)?)")
_NAMESPACE = UUID("6f0a2f0e-7f1d-5b7c-9a51-0d5d0c5c1e8a")
"""Namespace of the UUIDv5 ids.  Changing it would make every stored point look new."""


@dataclass(frozen=True, slots=True)
class Document:
    """An image, a PDF page, a part of a video, or a passage of text.

    Two documents with equal fields (metadata aside) are the same document and have the same id. Two documents
    with equal `content_hash` and `locator` show the same content, even if their sources differ.

    Attributes:
        source: The file or URL the document comes from.
        kind: `"picture"`, `"page"`, `"clip"` or `"text"`.
        content_hash: Digest of the file behind the media reference; empty if unknown.
        locator: The part of the source, as a URL fragment (`page=3`, `t=0,30`, `lines=1,12`); empty for the whole.
        text: Text to read, and to embed if `fused` or if there is no media.
        image: Reference of an image (path, URL or data URI), as `Embedder.embed` accepts it.
        video: Reference of a video, as `Embedder.embed` accepts it.
        fused: Whether the text is embedded together with the media, or only stored beside it.
        metadata: Further JSON values, stored and filterable. The keys in `RESERVED` are not allowed.

    Example:
        ```python
        Document("report.pdf", "page", locator="page=3", image="report.pdf#page=3")
        ```
    """

    source: str
    kind: Kind
    content_hash: str = ""
    locator: str = ""
    text: str = ""
    image: str | None = None
    video: str | None = None
    fused: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """UUID of source, locator and content; it does not depend on the metadata."""
        parts = (self.source, self.locator, self.content_hash, self.text, self.image or "", self.video or "")
        return str(uuid5(_NAMESPACE, "\0".join(parts)))

    def point_id(self, recipe: Recipe) -> str:
        """Return the UUID of this document's vector in a collection of the given recipe."""
        return str(uuid5(_NAMESPACE, f"{self.id}\0{self.fused}\0{recipe.digest}"))

    @property
    def content_key(self) -> str:
        """Digest of what is embedded: documents with equal keys have equal vectors under any recipe."""
        text = self.input.get("text", "")
        parts: tuple[str, ...] = (text,)
        if self.content_hash:
            parts = (self.content_hash, self.locator, str(self.image is not None), str(self.video is not None), text)
        elif self.image or self.video:
            parts = (self.image or "", self.video or "", self.locator, "", text)
        return text_digest("\0".join(parts))

    @property
    def words(self) -> str:
        """The text and the file's name, for search by words."""
        name = "" if self.source.startswith("data:") else re.split(r"[/\\]", self.source)[-1]
        # An underscore is a part of a word in texts, and separates words in names.
        return "\n".join(filter(None, (self.text, name, name.replace("_", " ") if "_" in name else "")))

    @property
    def page(self) -> int | None:
        """Page number, from 1, if the locator names a page."""
        match = _PAGE_LOCATOR.fullmatch(self.locator)
        return int(match["page"]) if match else None

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Start and end in seconds, if the locator names a part of a video."""
        match = _TIME_LOCATOR.fullmatch(self.locator)
        return (float(match["start"]), float(match["end"])) if match else None

    @property
    def name(self) -> str:
        """Source and locator in one string, for error messages."""
        source = self.source or shorten(self.image or self.video or "a document without a source", 80)
        return f"{source}#{self.locator}" if self.locator else source

    @property
    def input(self) -> dict[str, str]:
        """The document as an input of `Embedder.embed` and `Reranker.score`."""
        media = {key: value for key, value in (("image", self.image), ("video", self.video)) if value is not None}
        return {"text": self.text, **media} if self.text and (self.fused or not media) else media

    def to_payload(self) -> dict[str, Any]:
        """Return the document as vector stores keep it.

        Returns:
            The text under `page_content` and everything else under `metadata`: the keys that LangChain's vector
            stores read.
        """
        fields = {
            "source": self.source,
            "locator": self.locator,
            "kind": self.kind,
            "content_hash": self.content_hash,
            "image": self.image,
            "video": self.video,
            "fused": self.fused,
        }
        set_fields = {key: value for key, value in fields.items() if value is not None}
        return {"page_content": self.text, "metadata": {**self.metadata, **set_fields}}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Document:
        """Read a payload written by `to_payload`, by its former versions, or by others under the same keys.

        Args:
            payload: `page_content` and `metadata`; both may be missing.

        Returns:
            The document; metadata that are no field of it stay in `metadata`.
        """
        metadata = dict(payload.get("metadata") or {})
        if has_former_keys(metadata):
            metadata |= {name: metadata.pop(former) for name, former in FORMER_KEYS.items()}
        image, video = metadata.pop("image", None), metadata.pop("video", None)
        kind: Kind = "clip" if video else "picture" if image else "text"
        return cls(
            source=_to_text(metadata.pop("source", None)),
            kind=metadata.pop("kind", kind),
            content_hash=_to_text(metadata.pop("content_hash", None)),
            locator=_to_text(metadata.pop("locator", None)),
            text=payload.get("page_content") or "",
            image=image,
            video=video,
            fused=metadata.pop("fused", True),
            metadata=metadata,
        )

    content = deprecated_alias("Document", "content", "content_hash")
    place = deprecated_alias("Document", "place", "locator")
    embedded = deprecated_alias("Document", "embedded", "content_key")


Document.__init__ = renamed_arguments(content="content_hash", place="locator")(Document.__init__)  # type: ignore[method-assign]


def has_former_keys(metadata: Mapping[str, Any]) -> bool:
    """Return whether metadata were written by a version that had other names for two keys.

    Args:
        metadata: Stored metadata.

    Returns:
        True if all of `FORMER_KEYS` are there.
    """
    return all(former in metadata for former in FORMER_KEYS.values())


def _to_text(value: Any) -> str:
    """Return a text field as it is; others may have written None, or a number."""
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A source, or a part of one, that could not be loaded.

    Attributes:
        source: The file, folder or pattern.
        reason: Why, in words.
        locator: The part that failed, as a URL fragment like `Document.locator`; empty for the whole source.
    """

    source: str
    reason: str
    locator: str = ""

    @property
    def name(self) -> str:
        """Source and locator in one string, for error messages."""
        return f"{self.source}#{self.locator}" if self.locator else self.source
