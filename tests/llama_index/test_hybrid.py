"""LlamaIndex's `QdrantVectorStore` searches collections of `ingest` by words and vectors, and adds to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qwen3vl_qdrant import QdrantStore

from qwen3vl import Document, Retriever, ingest, open_store


@pytest.mark.parametrize("location", ["folder", ":memory:"])
def test_words_are_found_and_added(location: str, embed_model: Qwen3VLEmbedding, tmp_path: Path) -> None:
    library = open_store(str(tmp_path / "store") if location == "folder" else location, layout={"hybrid": True})
    assert isinstance(library, QdrantStore)
    documents = [
        Document(f"parts/{number}.md", "text", text=f"Valves AX-{7000 + number} of brass") for number in range(40)
    ]
    ingest(documents, embed_model.embedder, library)
    assert library.layout is not None
    bm25 = library.layout.bm25
    assert bm25 is not None
    vector_store = QdrantVectorStore(
        library.collection,
        client=library.client,
        enable_hybrid=True,
        sparse_doc_fn=bm25.sparse_doc_fn,
        sparse_query_fn=bm25.sparse_query_fn,
        dense_vector_name="",
        sparse_vector_name="text",
    )
    index = VectorStoreIndex.from_vector_store(vector_store, embed_model=embed_model)
    for mode in (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SPARSE):
        retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=3)
        for number in (3, 31):
            hits = retriever.retrieve(f"valve AX-{7000 + number}")
            assert f"parts/{number}.md" in [hit.node.metadata["source"] for hit in hits]
    index.insert_nodes([TextNode(text="Seal BX-9", id_="5e1f4a40-0000-4000-8000-000000000009")])
    (hit,) = Retriever(embed_model.embedder, library).search("seals", 1, mode="text")
    assert hit.id == "5e1f4a40-0000-4000-8000-000000000009"
    library.close()
