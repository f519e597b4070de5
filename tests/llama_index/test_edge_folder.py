"""LlamaIndex's Qdrant store over a folder: nodes of its own, and a collection that `ingest` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding, document_of_node
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qwen3vl_qdrant import Layout, QdrantEdgeStore, async_edge_client, edge_client

from qwen3vl import Loader, ingest
from tests.support.llama_index_helpers import best_source, check_retrieval
from tests.support.sample_library import SLIDE, STAR


def open_store(folder: Path, name: str = "nodes", **options: Any) -> QdrantVectorStore:
    return QdrantVectorStore(name, client=edge_client(folder), aclient=async_edge_client(folder), **options)


async def close_store(store: QdrantVectorStore) -> None:
    store.client.close()
    await store._aclient.close()


@pytest.mark.parametrize("route", ["sync", "async"])
async def test_index_inserts_finds_filters_and_deletes(
    route: str, nodes: list[BaseNode], embed_model: Qwen3VLEmbedding, library_folder: Path, tmp_path: Path
) -> None:
    store = open_store(tmp_path)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([], storage_context=context, embed_model=embed_model)
    if route == "async":
        await index.ainsert_nodes(nodes)
    else:
        index.insert_nodes(nodes)
    await close_store(store)

    store = open_store(tmp_path)
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    check_retrieval(index.as_retriever(similarity_top_k=8), embed_model, library_folder)
    pages = MetadataFilters(filters=[MetadataFilter(key="kind", value="page")])
    either = MetadataFilters(
        filters=[
            MetadataFilter(key="kind", value="clip"),
            MetadataFilter(key="locator", value=["page=2"], operator=FilterOperator.IN),
        ],
        condition=FilterCondition.OR,
    )
    for filters, kinds in ((pages, {"page"}), (either, {"page", "clip"})):
        retriever = index.as_retriever(similarity_top_k=40, filters=filters)
        hits = await retriever.aretrieve(SLIDE.caption()) if route == "async" else retriever.retrieve(SLIDE.caption())
        assert {hit.node.metadata["kind"] for hit in hits} == kinds
        assert best_source(hits) == "slides.pdf"
    star = next(node for node in nodes if node.metadata["source"].endswith("star.png"))
    (stored,) = await store.aget_nodes([star.node_id]) if route == "async" else store.get_nodes([star.node_id])
    assert document_of_node(stored).image == str(library_folder / "star.png")
    assert stored.embedding is None or len(stored.embedding) == embed_model.embedder.dimension
    if route == "async":
        await store.adelete_nodes([star.node_id])
        await store.adelete_nodes(filters=pages)
    else:
        store.delete_nodes([star.node_id])
        store.delete_nodes(filters=pages)
    assert best_source(index.as_retriever(similarity_top_k=1).retrieve(STAR.caption())) != "star.png"
    remaining = {hit.node.node_id for hit in index.as_retriever(similarity_top_k=99).retrieve("a")}
    assert remaining == {node.node_id for node in nodes if node.metadata["kind"] != "page"} - {star.node_id}
    document_id = nodes[0].ref_doc_id or "none"
    if route == "async":
        await store.adelete(document_id)
        await store.aclear()
    else:
        store.delete(document_id)
        store.clear()
    assert not store.client.collection_exists("nodes")
    await close_store(store)


@pytest.mark.parametrize("collection", ["qwen3vl", "short"])
async def test_ingested_folder_is_searched_by_text_and_picture(
    collection: str, embed_model: Qwen3VLEmbedding, library_folder: Path, tmp_path: Path
) -> None:
    layout = Layout(short=32, quantization="scalar") if collection == "short" else Layout()
    library = QdrantEdgeStore(tmp_path, collection, layout=layout)
    ingest(Loader().load([library_folder]), embed_model.embedder, library)
    library.close()
    store = open_store(tmp_path, collection)
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=embed_model).as_retriever(similarity_top_k=8)
    check_retrieval(retriever, embed_model, library_folder)
    star = str(library_folder / "star.png")
    for query in (STAR.caption(), embed_model.query_bundle({"image": star})):
        (best, *_) = await retriever.aretrieve(query)
        document = document_of_node(best.node)
        assert (document.image, document.source, document.kind) == (star, star, "picture")
    await close_store(store)


async def test_dense_and_sparse_vectors_of_one_index(nodes: list[BaseNode], tmp_path: Path) -> None:
    """With any sparse functions: LlamaIndex's own hybrid mode, over named vectors."""
    words = {word: index for index, word in enumerate(sorted({w for n in nodes for w in n.get_content().split()}))}

    def encode(texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
        indices = [sorted({words[word] for word in text.split() if word in words}) for text in texts]
        return indices, [[1.0] * len(row) for row in indices]

    store = open_store(tmp_path, enable_hybrid=True, sparse_doc_fn=encode, sparse_query_fn=encode)
    texts = [node for node in nodes if node.get_content()]
    for number, node in enumerate(texts):
        node.embedding = [1.0, float(number)]
    await store.async_add(texts)
    query = VectorStoreQuery(
        query_embedding=[1.0, 0.0], query_str="cyan", similarity_top_k=2, mode=VectorStoreQueryMode.HYBRID, alpha=0.1
    )
    for result in (store.query(query), await store.aquery(query)):
        assert result.nodes is not None
        assert "cyan" in result.nodes[0].get_content()
    await close_store(store)
