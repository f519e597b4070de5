"""Collections that `ingest` wrote, read by LangChain, LlamaIndex, plain Chroma and Qdrant's dashboard."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import chromadb
import numpy as np
import pytest
from langchain_chroma import Chroma
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore
from llama_index.core.schema import ImageNode, MetadataMode, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaQdrant
from qdrant_client import QdrantClient, models
from qwen3vl_chroma import ChromaStore, MediaLoader, Qwen3VLEmbeddingFunction
from qwen3vl_qdrant import Layout, QdrantEdgeStore, QdrantStore

from qwen3vl import Document, Embedder, Store, ingest
from qwen3vl.loaders import Loader
from tests.support.drawn_scenes import draw_scenes
from tests.support.engines import assert_close
from tests.support.fake_embedder import FakeEmbedder, fake_vector, passages, query_vector


class FakeEmbeddings(Embeddings):
    """The vectors of `FakeEmbedder`, for LangChain."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return fake_vector({"text": text}).tolist()  # type: ignore[no-any-return]


DOCUMENTS = [
    *passages(10),
    Document("a.png", "picture", "c1", image="/pictures/a.png", metadata={"artist": "Ann"}),
    Document("https://example.com/b.png", "picture", image="https://example.com/b.png", text="a caption"),
    Document("b.pdf", "page", "c2", locator="page=3", text="words", image="b.pdf#page=3", fused=False),
    Document("c.mp4", "clip", "c3", locator="t=0,30", video="c.mp4#t=0,30", metadata={"start": 0.0}),
]


def fill(store: Store) -> Store:
    assert ingest(DOCUMENTS, FakeEmbedder(), store).added == len(DOCUMENTS)
    return store


@pytest.fixture(params=[None, 8], ids=["full", "short"])
def qdrant(request: pytest.FixtureRequest) -> QdrantClient:
    client = QdrantClient(":memory:")
    fill(QdrantStore(client, layout=Layout(short=request.param)))
    return client


@pytest.fixture
def chroma(tmp_path: Path) -> Any:
    client = chromadb.PersistentClient(str(tmp_path / "chroma"))
    fill(ChromaStore(client))
    return client


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_langchain_qdrant_finds_documents(qdrant: QdrantClient, document: Document) -> None:
    store = QdrantVectorStore(qdrant, "qwen3vl", FakeEmbeddings())
    ((result, score),) = store.similarity_search_with_score_by_vector(query_vector(document).tolist(), 1)
    assert score == pytest.approx(1, abs=1e-5)
    metadata = {key: value for key, value in result.metadata.items() if key not in ("_id", "_collection_name")}
    assert result.page_content == document.text
    assert Document.from_payload({"page_content": result.page_content, "metadata": metadata}) == document


def test_langchain_qdrant_filters_by_metadata(qdrant: QdrantClient) -> None:
    store = QdrantVectorStore(qdrant, "qwen3vl", FakeEmbeddings())
    metadata_filter = models.Filter(
        must=[models.FieldCondition(key="metadata.number", match=models.MatchValue(value=4))]
    )
    (result,) = store.as_retriever(search_kwargs={"k": 3, "filter": metadata_filter}).invoke(DOCUMENTS[4].text)
    assert result.page_content == DOCUMENTS[4].text
    assert result.metadata["deep"] == {"x": [1]}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_langchain_chroma_finds_documents(chroma: Any, document: Document) -> None:
    store = Chroma("qwen3vl", FakeEmbeddings(), client=chroma)
    ((result, distance),) = store.similarity_search_by_vector_with_relevance_scores(query_vector(document).tolist(), 1)
    assert distance == pytest.approx(0, abs=1e-5)
    assert result.page_content == document.text
    fields = {
        "source": document.source,
        "locator": document.locator,
        "kind": document.kind,
        "content_hash": document.content_hash,
    }
    media = {key: value for key, value in (("image", document.image), ("video", document.video)) if value}
    assert (fields | media).items() <= result.metadata.items()
    scalars = {key: value for key, value in document.metadata.items() if key not in ("tags", "deep")}
    assert scalars.items() <= result.metadata.items()


def dashboard_images(payload: dict[str, Any]) -> list[str]:
    """What Qdrant's web interface shows as images: values at the top of a payload that are URLs of image files."""
    endings = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".svg")
    texts = [value for value in payload.values() if isinstance(value, str)]
    return [text for text in texts if urlsplit(text).scheme and urlsplit(text).path.endswith(endings)]


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        (Document("https://a.example/b.png", "picture", image="https://a.example/b.png"), ["https://a.example/b.png"]),
        (Document("post 7", "picture", image="HTTPS://a.example/c.jpg?x=1"), ["HTTPS://a.example/c.jpg?x=1"]),
        (Document("https://a.example/d.pdf", "page", image="https://a.example/d.pdf#page=3"), []),
        (Document("e.png", "picture", image="/pictures/e.png"), []),
        (Document("https://a.example/f.txt", "text", text="no image"), []),
    ],
)
def test_dashboard_of_qdrant_shows_images_once(document: Document, shown: list[str], tmp_path: Path) -> None:
    for store in (QdrantStore(QdrantClient(":memory:")), QdrantEdgeStore(tmp_path)):
        ingest([document], FakeEmbedder(), store)
        payload = store.client.scroll(store.collection)[0][0].payload or {}
        assert dashboard_images(payload) == shown
        assert payload.get("image") in (None, *shown)
        assert store.search(query_vector(document), 1)[0].document == document
        store.close()


def node_query(document: Document, **options: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=query_vector(document).tolist(), similarity_top_k=1, **options)


def check_node(node: Any, document: Document) -> None:
    """A node has the document's text and metadata, and its image if LlamaIndex can open it."""
    assert node.get_content(metadata_mode=MetadataMode.NONE) == document.text
    metadata = {key: value for key, value in node.metadata.items() if not key.startswith("_")}
    assert Document.from_payload({"page_content": document.text, "metadata": metadata}) == document
    if document.kind == "picture":
        assert isinstance(node, ImageNode)
        assert document.image in (node.image_path, node.image_url)
    else:
        assert type(node) is TextNode


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_llama_index_qdrant_finds_nodes(qdrant: QdrantClient, document: Document) -> None:
    result: Any = LlamaQdrant("qwen3vl", client=qdrant).query(node_query(document))
    assert result.similarities == pytest.approx([1], abs=1e-5)
    check_node(result.nodes[0], document)
    source_filter = MetadataFilters(filters=[MetadataFilter(key="metadata.source", value=document.source)])
    result = LlamaQdrant("qwen3vl", client=qdrant).query(node_query(DOCUMENTS[0], filters=source_filter))
    assert [node.metadata["source"] for node in result.nodes] == [document.source]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_llama_index_chroma_finds_nodes(chroma: Any, document: Document) -> None:
    store: Any = ChromaVectorStore(chroma_collection=chroma.get_collection("qwen3vl"))
    check_node(store.query(node_query(document)).nodes[0], document)
    source_filter = MetadataFilters(filters=[MetadataFilter(key="source", value=document.source)])
    check_node(store.query(node_query(document, filters=source_filter)).nodes[0], document)


def test_llama_index_deletes_nodes_by_source(chroma: Any, qdrant: QdrantClient) -> None:
    ChromaVectorStore(chroma_collection=chroma.get_collection("qwen3vl")).delete("notes/1.md")
    LlamaQdrant("qwen3vl", client=qdrant).delete("notes/1.md")
    assert ChromaStore(chroma).count() == QdrantStore(qdrant).count() == len(DOCUMENTS) - 3


def test_plain_chroma_searches_by_text_and_image(tmp_path: Path, tiny_embedder: Embedder) -> None:
    """The collection stores its embedding function, so that its name is enough."""
    scenes = draw_scenes(tmp_path / "in", 40)
    client: Any = chromadb.PersistentClient(str(tmp_path / "chroma"))
    ingest(Loader().load([tmp_path / "in"]), tiny_embedder, ChromaStore(client))
    collection = client.get_collection("qwen3vl", data_loader=MediaLoader())
    captions = [scene.caption() for _, scene in scenes[:20]]
    result = collection.query(query_texts=captions, n_results=1, include=["uris", "data", "distances"])
    is_found = [uri == [str(path)] for uri, (path, _) in zip(result["uris"] or [], scenes, strict=False)]
    assert sum(is_found) >= 17
    assert (result["data"] or [])[0][0].shape == (96, 96, 3)
    images = [np.asarray(scene.draw(Random(3))) for _, scene in scenes[:5]]
    by_image = collection.query(query_images=images, n_results=1, include=["uris"])
    assert [uris[0] for uris in by_image["uris"] or []] == [str(path) for path, _ in scenes[:5]]
    # Exactly the embedder's vectors.
    function = Qwen3VLEmbeddingFunction.of(tiny_embedder.recipe)
    assert_close(np.stack(function(captions)), tiny_embedder.embed(captions))
    rebuilt = Qwen3VLEmbeddingFunction.build_from_config(function.get_config())
    assert rebuilt.embedder is function.embedder


def test_query_instruction_applies_to_queries_only_and_may_change() -> None:
    function = Qwen3VLEmbeddingFunction("tiny", query_instruction="Find the picture.", device="cpu")
    document, query = function(["a red star"])[0], function.embed_query(["a red star"])[0]
    assert_close(query, function.embedder.embed(["a red star"], instruction="Find the picture.")[0])
    assert not np.allclose(document, query, atol=1e-3)
    with pytest.raises(ValueError, match="model"):
        function.validate_config_update(function.get_config(), {**function.get_config(), "model": "other"})
    function.validate_config_update(function.get_config(), {**function.get_config(), "query_instruction": "x"})


def test_media_loader_opens_every_kind_of_reference(tmp_path: Path, media: dict[str, Path], server: Any) -> None:
    from qwen3vl import MediaPolicy

    server.pages["/a.png"] = (200, {}, media["odd"].read_bytes())
    server.pages["/clip.mp4?x=1"] = (200, {}, media["clip"].read_bytes())
    encoded = b64encode(media["odd"].read_bytes()).decode()
    load = MediaLoader(MediaPolicy(private_hosts=True))
    images = [str(media["odd"]), media["odd"].as_uri(), server.url("/a.png"), f"data:image/png;base64,{encoded}"]
    videos = [str(media["clip"]), server.url("/clip.mp4?x=1"), f"{media['clip']}#t=0,2"]
    for expected, uris in ((load(images[:1])[0], images), (load(videos[:1])[0], videos[:2])):
        for frame in load(uris):
            np.testing.assert_array_equal(frame, expected)
    (part,) = load(videos[2:])
    assert part is not None
    assert part.ndim == 3


def test_media_loader_applies_the_policy(tmp_path: Path, media: dict[str, Path]) -> None:
    from qwen3vl import MediaPolicy, PolicyError

    ((path, _),) = draw_scenes(tmp_path, 1)
    load = MediaLoader(MediaPolicy(folders=(tmp_path, media["clip"].parent)))
    image, video, none = load([str(path), str(media["clip"]), None])
    assert image is not None
    assert image.shape == (96, 96, 3)
    assert video is not None
    assert video.dtype == np.uint8
    assert video.ndim == 3
    assert none is None
    with pytest.raises(PolicyError):
        load(["http://127.0.0.1/a.png"])
    with pytest.raises(PolicyError):
        load(["/etc/hostname"])
