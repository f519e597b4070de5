"""What is indexed and found: documents with text, media references and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid5

from qwen3vl.inputs import shorten
from qwen3vl.recipe import Recipe

Kind = Literal["picture", "page", "clip", "text"]

RESERVED = frozenset({"source", "place", "kind", "content", "image", "video", "fused"})
"""Keys of stored metadata that hold the document's own fields."""
_NAMESPACE = UUID("6f0a2f0e-7f1d-5b7c-9a51-0d5d0c5c1e8a")


@dataclass(frozen=True, slots=True)
class Document:
    """A picture, a page, a part of a clip or a passage.

    source: the file or URL it comes from.
    place: where in the source, as a fragment (`page=3`, `t=0,30`, `lines=1,12`), empty for all of it.
    content: a digest of the file behind a reference; documents that are equal in all of this are the same, and
    those that are equal in content and place show the same, whatever their source.
    text: what a reader reads; `image` and `video`: references as inputs take them.
    fused: whether the text is embedded together with the media, or only kept beside them.
    """

    source: str
    kind: Kind
    content: str = ""
    place: str = ""
    text: str = ""
    image: str | None = None
    video: str | None = None
    fused: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """A UUID that stays while source, place and what is there do."""
        told = (self.source, self.place, self.content, self.text, self.image or "", self.video or "")
        return str(uuid5(_NAMESPACE, "\0".join(told)))

    def point_id(self, recipe: Recipe) -> str:
        """The UUID of this document's vector in a collection of this recipe."""
        return str(uuid5(_NAMESPACE, f"{self.id}\0{self.fused}\0{recipe.digest}"))

    @property
    def embedded(self) -> str:
        """A digest of what is embedded: documents that agree in it have the same vector in any recipe."""
        text = self.input.get("text", "")
        told: tuple[str, ...] = (text,)
        if self.content:
            told = (self.content, self.place, str(self.image is not None), str(self.video is not None), text)
        elif self.image or self.video:
            told = (self.image or "", self.video or "", self.place, "", text)
        return text_digest("\0".join(told))

    @property
    def page(self) -> int | None:
        """The page, from 1, where the place names one."""
        value = self.place.removeprefix("page=")
        return int(value) if value != self.place and value.isdecimal() else None

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Start and end of a clip's part, where the place names them."""
        value = self.place.removeprefix("t=")
        if value == self.place:
            return None
        start, _, end = value.partition(",")
        return float(start), float(end)

    @property
    def name(self) -> str:
        """Source and place in one string, as messages speak of the document."""
        told = self.source or shorten(self.image or self.video or "a document without a source", 80)
        return f"{told}#{self.place}" if self.place else told

    @property
    def input(self) -> dict[str, str]:
        """The document as `Embedder.embed` and `Reranker.score` take it."""
        media = {key: value for key, value in (("image", self.image), ("video", self.video)) if value is not None}
        return {"text": self.text, **media} if self.text and (self.fused or not media) else media

    def to_payload(self) -> dict[str, Any]:
        """The document as stores keep it: text under `page_content`, all else under `metadata`.

        These are the keys that LangChain's stores read.
        """
        own = {
            "source": self.source,
            "place": self.place,
            "kind": self.kind,
            "content": self.content,
            "image": self.image,
            "video": self.video,
            "fused": self.fused,
        }
        kept = {key: value for key, value in own.items() if value is not None}
        return {"page_content": self.text, "metadata": {**self.metadata, **kept}}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Document:
        """Reads what `to_payload` wrote, and what others wrote under the same keys."""
        rest = dict(payload.get("metadata") or {})
        image, video = rest.pop("image", None), rest.pop("video", None)
        kind: Kind = "clip" if video else "picture" if image else "text"
        return cls(
            source=rest.pop("source", ""),
            kind=rest.pop("kind", kind),
            content=rest.pop("content", ""),
            place=rest.pop("place", ""),
            text=payload.get("page_content") or "",
            image=image,
            video=video,
            fused=rest.pop("fused", True),
            metadata=rest,
        )


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A source, or a part of one, that could not be loaded."""

    source: str
    reason: str


def file_digest(path: Path) -> str:
    """BLAKE2b over a file's bytes: 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def text_digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
