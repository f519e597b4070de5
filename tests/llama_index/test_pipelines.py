"""Ingestion pipelines, whose cache must not confuse images that have no text."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.ingestion import pipeline as ingestion_pipeline
from llama_index.core.node_parser import MarkdownNodeParser
from llama_index.core.schema import BaseNode, ImageDocument, ImageNode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.node_parser.qwen3_vl import Qwen3VLSplitter
from llama_index.readers.qwen3_vl import Qwen3VLReader
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from qwen3vl import Embedder, MediaPolicy
from tests.support.engines import assert_close
from tests.support.llama_index_helpers import image_nodes


def test_cached_images_without_text_keep_their_own_vectors(
    embed_model: Qwen3VLEmbedding, library_folder: Path, tiny_embedder: Embedder
) -> None:
    """On the second run, and in another pipeline with the same cache."""
    cache = IngestionCache()
    pipeline = IngestionPipeline(transformations=[embed_model], cache=cache)
    star, other = image_nodes(library_folder, "star.png", "0.png")
    expected = tiny_embedder.embed([{"image": node.image_path} for node in (star, other)]).tolist()
    first_run = pipeline.run(nodes=image_nodes(library_folder, "star.png", "0.png"))
    assert_close([node.embedding for node in first_run], expected)
    second_run = pipeline.run(nodes=image_nodes(library_folder, "star.png", "0.png"))
    assert_close([node.embedding for node in second_run], expected)
    assert [node.node_id for node in second_run] == [node.node_id for node in first_run]  # from the cache
    (star_alone,) = pipeline.run(nodes=[star])
    (other_alone,) = IngestionPipeline(transformations=[embed_model], cache=cache).run(nodes=[other])
    vectors = np.asarray([star_alone.embedding, other_alone.embedding])
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    assert (star_alone.node_id, other_alone.node_id) == (star.node_id, other.node_id)


async def test_awaited_pipeline_gives_images_without_text_their_own_vectors(
    embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    pipeline = IngestionPipeline(transformations=[embed_model])
    (star,) = await pipeline.arun(nodes=image_nodes(library_folder, "star.png"))
    (other,) = await pipeline.arun(nodes=image_nodes(library_folder, "0.png"))
    assert star.embedding != other.embedding


def test_cache_does_not_replace_a_copy_of_a_file_by_the_first_node(library_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.png").write_bytes((library_folder / "star.png").read_bytes())
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=MediaPolicy(folders=(library_folder, tmp_path)))
    pipeline = IngestionPipeline(transformations=[embed_model])
    (original,) = pipeline.run(nodes=image_nodes(library_folder, "star.png"))
    (copy,) = pipeline.run(nodes=image_nodes(tmp_path, "copy.png"))
    assert copy.image_path == str(tmp_path / "copy.png")  # type: ignore[attr-defined]
    assert copy.embedding == original.embedding


def test_changed_file_is_embedded_again(library_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=MediaPolicy(folders=(tmp_path,)))
    pipeline = IngestionPipeline(transformations=[embed_model])
    vectors = []
    for name in ("star.png", "0.png", "star.png"):
        path.write_bytes((library_folder / name).read_bytes())
        (node,) = pipeline.run(nodes=[ImageNode(image_path=str(path))])
        vectors.append(node.embedding)
    assert vectors[0] == vectors[2] != vectors[1]


@pytest.mark.parametrize(("kind", "is_async"), [("simple", False), ("simple", True), ("qdrant", False)])
@pytest.mark.parametrize("splitters", [[], [Qwen3VLSplitter(parser=MarkdownNodeParser())]], ids=["whole", "split"])
def test_files_that_are_gone_or_changed_are_deleted_from_the_vector_store(
    kind: str, is_async: bool, splitters: list[Any], library_folder: Path, tmp_path: Path
) -> None:
    """Also where a splitter has divided the nodes of the reader."""
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=MediaPolicy(folders=(tmp_path,)))
    store = SimpleVectorStore() if kind == "simple" else QdrantVectorStore("nodes", client=QdrantClient(":memory:"))
    pipeline = IngestionPipeline(
        transformations=[*splitters, embed_model],
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        vector_store=store,
    )

    def run() -> tuple[list[str], list[str]]:
        """The sources that are embedded, and those that are found afterwards."""
        nodes = Qwen3VLReader().load_data(tmp_path)
        added = asyncio.run(pipeline.arun(nodes=nodes)) if is_async else pipeline.run(nodes=nodes)
        if isinstance(store, SimpleVectorStore):
            found = [str(metadata["source"]) for metadata in store.data.metadata_dict.values()]
        else:
            found = [node.metadata["source"] for node in store.get_nodes()]
        return sorted(Path(node.metadata["source"]).name for node in added), sorted(Path(name).name for name in found)

    star = (library_folder / "star.png").read_bytes()
    (tmp_path / "star.png").write_bytes(star)
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes((library_folder / "0.png").read_bytes())
    (tmp_path / "notes.md").write_text("# One\n\nfirst\n")
    everything = ["0.png", "1.png", "notes.md", "star.png"]
    assert run() == (everything, everything)
    assert run() == ([], everything)
    (tmp_path / "1.png").unlink()
    (tmp_path / "0.png").write_bytes(star)
    (tmp_path / "notes.md").write_text("# Two\n\nsecond\n")
    assert run() == (["0.png", "notes.md"], ["0.png", "notes.md", "star.png"])


def test_skipped_node_is_tried_again_when_it_is_deleted_from_the_docstore(library_folder: Path, tmp_path: Path) -> None:
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=MediaPolicy(folders=(tmp_path,)), on_error="skip")
    docstore = SimpleDocumentStore()
    pipeline = IngestionPipeline(
        transformations=[embed_model], docstore=docstore, vector_store=SimpleVectorStore(), disable_cache=True
    )
    node = TextNode(text="", metadata={"image": str(tmp_path / "late.png")})
    assert pipeline.run(nodes=[node]) == []
    (tmp_path / "late.png").write_bytes((library_folder / "star.png").read_bytes())
    assert pipeline.run(nodes=[node]) == []
    docstore.delete_document(node.node_id)
    assert [embedded.node_id for embedded in pipeline.run(nodes=[node])] == [node.node_id]


@pytest.mark.slow
def test_pipeline_with_two_processes_gives_the_vectors_of_one(
    embed_model: Qwen3VLEmbedding, library_folder: Path, nodes: list[BaseNode]
) -> None:
    """Workers get settings without a model and load their own; their cache entries come back.

    LlamaIndex's token splitters are not used: each worker downloads their tokenizer.
    """
    splitter = Qwen3VLSplitter(parser=MarkdownNodeParser())
    documents = [ImageDocument(image_path=str(library_folder / name), id_=name) for name in ("star.png", "0.png")]
    pipeline = IngestionPipeline(transformations=[splitter, embed_model])
    results = pipeline.run(nodes=nodes, documents=documents, num_workers=2)
    alone = IngestionPipeline(transformations=[splitter, embed_model]).run(nodes=nodes, documents=documents)
    by_source = {node.ref_doc_id: node.get_embedding() for node in results}
    assert by_source.keys() == {node.ref_doc_id for node in alone}
    assert len(results) == len(alone)
    for node in alone:
        np.testing.assert_allclose(by_source[node.ref_doc_id], node.get_embedding(), atol=2e-6)
    assert any(isinstance(node, ImageNode) and node.ref_doc_id == "star.png" for node in results)
    again = pipeline.run(nodes=nodes, documents=documents, num_workers=2)
    if hasattr(ingestion_pipeline, "_run_transformations_worker"):  # before 0.14, workers' cache entries are lost
        assert {node.node_id for node in again} == {node.node_id for node in results}
    assert len(again) == len(results)
