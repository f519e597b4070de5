"""Real LlamaIndex indexes over each store find the right images, videos and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chromadb
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.indices.multi_modal import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import BaseNode, ImageDocument, MediaResource, Node, QueryBundle, TextNode
from llama_index.core.schema import Document as LlamaDocument
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding, document_of_node, node_of_document
from llama_index.readers.qwen3_vl import Qwen3VLReader
from llama_index.vector_stores.chroma import ChromaVectorStore
from qwen3vl_chroma import ChromaStore

from qwen3vl import Embedder, InputError, Retriever, ingest
from tests.support.engines import assert_close
from tests.support.llama_index_helpers import best_source, check_retrieval, image_nodes, open_vector_store
from tests.support.sample_library import STAR


@pytest.mark.parametrize("route", ["nodes", "documents", "embedded", "inserted", "async", "async inserted", "pipeline"])
@pytest.mark.parametrize("kind", ["simple", "chroma", "qdrant"])
async def test_index_finds_media_on_every_route_and_after_reopening(
    kind: str, route: str, nodes: list[BaseNode], embed_model: Qwen3VLEmbedding, library_folder: Path, tmp_path: Path
) -> None:
    store, close = open_vector_store(kind, tmp_path)
    context = StorageContext.from_defaults(vector_store=store)
    if route == "nodes":
        index = VectorStoreIndex(nodes, storage_context=context, embed_model=embed_model)
    elif route == "documents":
        documents: Any = nodes
        index = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=embed_model)
    elif route == "embedded":
        index = VectorStoreIndex(embed_model(nodes), storage_context=context, embed_model=embed_model)
    elif route == "inserted":
        index = VectorStoreIndex([], storage_context=context, embed_model=embed_model)
        index.insert_nodes(nodes)
    elif route in ("async", "async inserted"):
        if kind == "qdrant":
            pytest.skip("LlamaIndex's Qdrant store needs an async client, which a local folder does not have")
        initial_nodes = nodes if route == "async" else []
        use_async = route == "async"
        index = VectorStoreIndex(initial_nodes, storage_context=context, embed_model=embed_model, use_async=use_async)
        if route == "async inserted":
            await index.ainsert_nodes(nodes)
        (hit, *_) = await index.as_retriever(similarity_top_k=8).aretrieve(STAR.caption())
        assert best_source([hit]) == "star.png"
    elif kind == "simple":  # it stores no texts
        index = VectorStoreIndex(
            IngestionPipeline(transformations=[embed_model]).run(nodes=nodes), embed_model=embed_model
        )
    else:
        IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=nodes)
        index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    check_retrieval(index.as_retriever(similarity_top_k=8), embed_model, library_folder)
    if kind == "simple":
        return
    close()
    reopened, close = open_vector_store(kind, tmp_path)
    index = VectorStoreIndex.from_vector_store(reopened, embed_model=embed_model)
    check_retrieval(index.as_retriever(similarity_top_k=8), embed_model, library_folder)
    (hit,) = index.as_retriever(similarity_top_k=1).retrieve(STAR.caption())
    star = document_of_node(hit.node)
    assert (star.image, star.kind, star.text) == (str(library_folder / "star.png"), "picture", "")
    close()


async def test_indexes_and_pipelines_store_the_embedders_vectors(
    nodes: list[BaseNode], embed_model: Qwen3VLEmbedding, tiny_embedder: Embedder
) -> None:
    index = VectorStoreIndex(nodes, embed_model=embed_model)
    expected = tiny_embedder.embed([document_of_node(node).input for node in nodes])
    async_index = VectorStoreIndex([], embed_model=embed_model)
    await async_index.ainsert_nodes(nodes)
    for stored in (index.vector_store.to_dict(), async_index.vector_store.to_dict()):
        assert_close([stored["embedding_dict"][node.node_id] for node in nodes], expected)
    pipeline = IngestionPipeline(transformations=[embed_model])
    assert_close([node.embedding for node in pipeline.run(nodes=nodes)], expected)
    async_pipeline = IngestionPipeline(transformations=[embed_model])
    assert_close([node.embedding for node in await async_pipeline.arun(nodes=nodes)], expected)


def test_index_embeds_caption_and_image_together(
    embed_model: Qwen3VLEmbedding, library_folder: Path, tiny_embedder: Embedder
) -> None:
    (node,) = image_nodes(library_folder, "star.png")
    node.text = "a caption"
    index = VectorStoreIndex([node], embed_model=embed_model)
    expected = tiny_embedder.embed([{"text": "a caption", "image": node.image_path}])[0].tolist()
    assert index.vector_store.to_dict()["embedding_dict"][node.node_id] == expected


def test_embedded_images_without_text_stay_in_an_index(embed_model: Qwen3VLEmbedding, library_folder: Path) -> None:
    """LlamaIndex drops nodes without text before it calls the model; embedded nodes have a text."""
    embedded = embed_model(image_nodes(library_folder, "star.png", "0.png"))
    hits = VectorStoreIndex(embedded, embed_model=embed_model).as_retriever().retrieve(STAR.caption())
    assert len(hits) == 2
    assert hits[0].node.image_path == str(library_folder / "star.png")  # type: ignore[attr-defined]


def test_fresh_qdrant_index_searches_only_image_nodes_until_reopened(
    embed_model: Qwen3VLEmbedding, library_folder: Path, tmp_path: Path
) -> None:
    """LlamaIndex's behaviour, which the documentation describes."""
    note = TextNode(text="a cyan square on the left", metadata={"source": "note"})
    nodes = [*image_nodes(library_folder, "star.png", "0.png"), note]
    store, close = open_vector_store("qdrant", tmp_path)
    context = StorageContext.from_defaults(vector_store=store)
    fresh = VectorStoreIndex(embed_model(nodes), storage_context=context, embed_model=embed_model)
    assert len(fresh.as_retriever(similarity_top_k=5).retrieve(note.text)) == 2
    reopened = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    assert best_source(reopened.as_retriever(similarity_top_k=5).retrieve(note.text)) == "note"
    close()


def test_multi_modal_index_finds_images_and_texts(embed_model: Qwen3VLEmbedding, library_folder: Path) -> None:
    paths = [library_folder / "star.png", library_folder / "0.png", library_folder / "notes.md"]
    nodes = Qwen3VLReader(image_nodes=True).load_data(paths)
    index = MultiModalVectorStoreIndex(nodes, embed_model=embed_model, image_embed_model=embed_model)
    retriever = index.as_retriever(similarity_top_k=4, image_similarity_top_k=4)
    assert best_source(retriever.text_to_image_retrieve(STAR.caption())) == "star.png"
    assert best_source(retriever.image_to_image_retrieve(str(library_folder / "star.png"))) == "star.png"
    (note, *_) = retriever.text_retrieve("a cyan square on the left")
    assert "cyan square" in note.node.get_content()
    sources = {Path(hit.node.metadata["source"]).name for hit in retriever.retrieve(STAR.caption())}
    assert {"star.png", "notes.md"} <= sources
    with pytest.raises(InputError, match="query_bundle"):
        retriever.retrieve(QueryBundle(query_str="", embedding=embed_model.get_query_embedding("a")))


def test_multi_modal_index_finds_image_resources_made_image_nodes(
    embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    """It leaves out images that are no `ImageNode`s, without a warning."""
    node = Node(image_resource=MediaResource(path=library_folder / "star.png"), id_="star")
    image_node = node_of_document(document_of_node(node), image_nodes=True)
    index = MultiModalVectorStoreIndex([image_node], embed_model=embed_model, image_embed_model=embed_model)
    (hit,) = index.as_retriever().text_to_image_retrieve(STAR.caption())
    assert hit.node.image_path == str(library_folder / "star.png")  # type: ignore[attr-defined]


def test_media_resources_survive_storing(embed_model: Qwen3VLEmbedding, library_folder: Path, tmp_path: Path) -> None:
    nodes = [
        Node(image_resource=MediaResource(path=library_folder / "star.png"), extra_info={"source": "star"}),
        Node(video_resource=MediaResource(path=library_folder / "mover.mp4"), extra_info={"source": "mover"}),
        Node(text_resource=MediaResource(text="a cyan square on the left"), extra_info={"source": "note"}),
    ]
    store, close = open_vector_store("qdrant", tmp_path)
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex(embed_model(nodes), storage_context=context, embed_model=embed_model)
    close()
    store, close = open_vector_store("qdrant", tmp_path)
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=embed_model).as_retriever(similarity_top_k=3)
    (hit, *_) = retriever.retrieve(embed_model.query_bundle({"video": str(library_folder / "mover.mp4")}))
    assert hit.node.metadata["source"] == "mover"
    assert document_of_node(hit.node).video == str(library_folder / "mover.mp4")
    assert best_source(retriever.retrieve(STAR.caption())) == "star"
    close()


def test_documents_keep_their_media_in_stores(
    embed_model: Qwen3VLEmbedding, library_folder: Path, tmp_path: Path
) -> None:
    """Stores return documents as text nodes: the references must be in their metadata."""
    star, mover = library_folder / "star.png", library_folder / "mover.mp4"
    documents = [
        ImageDocument(image_path=str(star), extra_info={"source": "star"}),
        LlamaDocument(video_resource=MediaResource(path=mover), text="a clip", extra_info={"source": "mover"}),
    ]
    store, close = open_vector_store("qdrant", tmp_path)
    IngestionPipeline(transformations=[embed_model], vector_store=store).run(documents=documents)
    assert documents[0].metadata == {"source": "star"}
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=embed_model).as_retriever(similarity_top_k=2)
    hits = retriever.retrieve(STAR.caption())
    by_source = {hit.node.metadata["source"]: document_of_node(hit.node) for hit in hits}
    assert (by_source["star"].image, by_source["star"].text) == (str(star), "")
    assert (by_source["mover"].video, by_source["mover"].text) == (str(mover), "a clip")
    close()


def test_index_opens_a_collection_that_ingest_wrote(
    nodes: list[BaseNode], embed_model: Qwen3VLEmbedding, library_folder: Path, tmp_path: Path
) -> None:
    client = chromadb.PersistentClient(str(tmp_path))
    store = ChromaStore(client, "both")
    assert ingest([document_of_node(node) for node in nodes], embed_model.embedder, store).added == len(nodes)
    vector_store = ChromaVectorStore(chroma_collection=client.get_collection("both"))
    index = VectorStoreIndex.from_vector_store(vector_store, embed_model=embed_model)
    check_retrieval(index.as_retriever(similarity_top_k=8), embed_model, library_folder)
    (hit,) = index.as_retriever(similarity_top_k=1).retrieve(STAR.caption())
    (node,) = Qwen3VLReader(image_nodes=True).load_data(library_folder / "star.png")
    differing = {"id_", "relationships"}
    assert hit.node.model_dump(exclude=differing) == node.model_dump(exclude=differing)
    (document_hit, *_) = Retriever(embed_model.embedder, store).search(STAR.caption(), 1)
    assert node_of_document(document_hit.document).metadata == hit.node.metadata
