"""Hits and documents as clients see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from qwen3vl.documents import Document
from qwen3vl.stores import Hit
from qwen3vl_server.library.signing import MediaSigner

MEDIA_PATH = "/v1/media"


class MediaUrls(BaseModel):
    """Where browsers load the media of a document, on this server; a field without media is missing."""

    thumbnail: str | None = None
    image: str | None = Field(None, description="The picture as it was stored, or the PDF page as a picture.")
    video: str | None = Field(None, description="The whole video; answers range requests.")


class StoredDocument(BaseModel):
    """A document of the store."""

    id: str
    kind: str
    source: str
    locator: str
    page: int | None
    seconds: tuple[float, float] | None = Field(description="Start and end of a clip in its video.")
    text: str
    metadata: dict[str, Any]
    media: MediaUrls


class FoundDocument(StoredDocument):
    """A hit."""

    rank: int = Field(description="From 1, in the order of the answer and with its offset.")
    score: float = Field(
        description="By mode: dense has the cosine of the vectors, text BM25, hybrid the fused ranks from 0 to 1."
    )
    rerank_score: float | None = Field(description="The reranker's score, 0 to 1; null if it was not asked.")
    rerank_error: str | None = Field(description="Why the reranker could not read the document.")


class HitShaper:
    """Turns hits and documents into JSON values.

    Args:
        signer: Signs the URLs of media.
        root_path: Path below which the application is mounted; empty if it is not.
    """

    def __init__(self, signer: MediaSigner, root_path: str) -> None:
        self._signer = signer
        self._root_path = root_path

    def document(self, point_id: str, document: Document) -> dict[str, Any]:
        """Return the fields of a `StoredDocument`.

        Args:
            point_id: The id of its point.
            document: The document.

        Returns:
            The fields. A stored thumbnail is left out of the metadata: it is large, and `media` has its URL.
        """
        metadata = {key: value for key, value in document.metadata.items() if key != "thumbnail"}
        return {
            "id": point_id,
            "kind": document.kind,
            "source": document.source,
            "locator": document.locator,
            "page": document.page,
            "seconds": document.seconds,
            "text": document.text,
            "metadata": metadata,
            "media": self._media(point_id, document),
        }

    def hit(self, rank: int, hit: Hit) -> dict[str, Any]:
        """Return the fields of a `FoundDocument`.

        Args:
            rank: Its rank, from 1.
            hit: The hit.

        Returns:
            The fields.
        """
        scores = {"score": hit.score, "rerank_score": hit.rerank_score, "rerank_error": hit.rerank_error}
        return {**self.document(hit.id, hit.document), "rank": rank, **scores}

    def _media(self, point_id: str, document: Document) -> Mapping[str, str]:
        has_media = {
            "thumbnail": document.image is not None or document.video is not None,
            "image": document.image is not None,
            "video": document.video is not None,
        }
        query = self._signer.query(point_id)
        return {
            name: f"{self._root_path}{MEDIA_PATH}/{point_id}/{name}{query}"
            for name, is_there in has_media.items()
            if is_there
        }
