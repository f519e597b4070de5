"""A document compressor that filters by embeddings, with images and videos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

from langchain_qwen3_vl.documents import with_metadata
from langchain_qwen3_vl.embeddings import Qwen3VLEmbeddings
from langchain_qwen3_vl.inputs import Content

if TYPE_CHECKING:
    from qwen3vl import Batch

log = logging.getLogger(__name__)
FILTER_METADATA_KEYS = ("query_similarity_score", "filter_error")
"""Metadata keys that filtering sets. Their values from an earlier filtering are removed."""


class Qwen3VLEmbeddingsFilter(BaseDocumentCompressor):
    """Keeps the documents that are similar to a query, without those that repeat others, by their text and media.

    It does what `EmbeddingsFilter` and `EmbeddingsRedundantFilter` of LangChain do. These embed only `page_content`,
    and so fail on documents without text and compare captions in place of images.

    Documents are returned best first, as copies with `query_similarity_score` (a cosine) in their metadata. A document
    that cannot be read comes after all others, with a score of None and the reason under `filter_error`, unless there
    is a `similarity_threshold`.

    Attributes:
        embeddings: Embeds the documents and the query.
        k: Maximum number of documents to return; None returns all.
        similarity_threshold: Documents with a lower similarity to the query, or with none, are left out; None keeps
            all.
        redundancy_threshold: A document is left out if its similarity to a better one is higher than this; None keeps
            all. `EmbeddingsRedundantFilter` has 0.95.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLEmbeddingsFilter
        from PIL import Image
        from qwen3vl import MediaPolicy

        Image.new("RGB", (96, 96), "red").save("red.png")
        documents = [Document("", metadata={"image": "red.png"}), Document("a blue star"), Document("a blue star")]
        embeddings = Qwen3VLEmbeddings(model="tiny", policy=MediaPolicy(folders=["."]))
        embeddings_filter = Qwen3VLEmbeddingsFilter(embeddings=embeddings, redundancy_threshold=0.95)
        print(len(embeddings_filter.compress_documents(documents, "a blue star")))
        ```
    """

    model_config = ConfigDict(extra="forbid")

    embeddings: Qwen3VLEmbeddings = Field(description="Embeds the documents and the query.")
    k: int | None = Field(default=20, ge=0, description="Maximum number of documents to return; None returns all.")
    similarity_threshold: float | None = Field(
        default=None, description="Documents with a lower similarity to the query are left out; None keeps all."
    )
    redundancy_threshold: float | None = Field(
        default=None,
        description="A document is left out if its similarity to a better one is higher; None keeps all.",
    )

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: Content,
        callbacks: Callbacks | None = None,  # noqa: ARG002 (required by LangChain; not used)
    ) -> list[Document]:
        """Return the documents that are similar to a query, best first.

        Args:
            documents: LangChain documents, with media references in their metadata.
            query: The query.
            callbacks: Not used.

        Returns:
            Copies of at most `k` documents.

        Raises:
            InputError: The query cannot be used.
        """
        if not documents:
            return []
        batch = self.embeddings.collect(documents)
        return self._select(documents, batch, self.embeddings.embed_query(query))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: Content,
        callbacks: Callbacks | None = None,  # noqa: ARG002 (as above)
    ) -> list[Document]:
        """Filter documents as `compress_documents` does, without blocking the event loop.

        Args:
            documents: As for `compress_documents`.
            query: As for `compress_documents`.
            callbacks: Not used.

        Returns:
            As `compress_documents` returns.
        """
        if not documents:
            return []
        batch = await self.embeddings.acollect(documents)
        return self._select(documents, batch, await self.embeddings.aembed_query(query))

    def _select(self, documents: Sequence[Document], batch: Batch, query_vector: Sequence[float]) -> list[Document]:
        similarities = batch.values @ np.asarray(query_vector, dtype=np.float32)
        ok = batch.ok
        selected: list[int] = []
        for index in np.argsort(-similarities, kind="stable").tolist():  # NaN, so what cannot be read, is last
            if ok[index] and self._passes(similarities[index], batch.values[selected] @ batch.values[index]):
                selected.append(index)
        filtered = []
        for index in selected:
            score = {"query_similarity_score": float(similarities[index])}
            filtered.append(with_metadata(documents[index], score, without=FILTER_METADATA_KEYS))
        for error in batch.errors:
            log.warning("cannot filter %s", error)
            if self.similarity_threshold is None:
                reason = {"query_similarity_score": None, "filter_error": error.reason}
                filtered.append(with_metadata(documents[error.index], reason, without=FILTER_METADATA_KEYS))
        return filtered[: self.k]

    def _passes(self, similarity: float, to_selected: np.ndarray) -> bool:
        if self.similarity_threshold is not None and similarity < self.similarity_threshold:
            return False
        return self.redundancy_threshold is None or not bool(np.any(to_selected > self.redundancy_threshold))
