"""Sparse vectors of words, for LangChain's hybrid search over Qdrant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

if TYPE_CHECKING:
    from qwen3vl_qdrant import Bm25


class Bm25Embeddings(SparseEmbeddings):
    """The sparse vectors of a collection with `Layout(hybrid=True)`, for `langchain_qdrant.QdrantVectorStore`.

    Args:
        settings: Those of the collection: `store.layout.bm25`.

    Example:
        Requires `pip install ".[torch]" ./integrations/langchain ./integrations/qdrant langchain-qdrant`.

        ```python
        from langchain_qdrant import QdrantVectorStore, RetrievalMode
        from langchain_qwen3_vl import Bm25Embeddings, Qwen3VLEmbeddings
        from qwen3vl import Document, ingest, open_store

        embeddings = Qwen3VLEmbeddings(model="tiny")
        collection = open_store(":memory:", layout={"hybrid": True})
        ingest([Document("parts.md", "text", text="Valve AX-7000")], embeddings.embedder, collection)
        vector_store = QdrantVectorStore(
            collection.client,
            collection.collection,
            embeddings,
            sparse_embedding=Bm25Embeddings(collection.layout.bm25),
            sparse_vector_name="text",
            retrieval_mode=RetrievalMode.HYBRID,
        )
        print(vector_store.similarity_search("AX-7000", 1)[0].page_content)
        ```
    """

    def __init__(self, settings: Bm25) -> None:
        self.settings = settings

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Return the vectors of documents.

        Args:
            texts: Their texts.

        Returns:
            A vector for each.
        """
        vectors = [self.settings.embed_document(text) for text in texts]
        return [SparseVector(indices=vector.indices, values=vector.values) for vector in vectors]

    def embed_query(self, text: str) -> SparseVector:
        """Return the vector of a query.

        Args:
            text: Its text.

        Returns:
            The vector.
        """
        vector = self.settings.embed_query(text)
        return SparseVector(indices=vector.indices, values=vector.values)
