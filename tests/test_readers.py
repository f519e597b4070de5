"""What `ingest` writes, opened by LangChain's and LlamaIndex's own stores, and by plain Chroma."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from random import Random
from typing import Any

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
from qwen3vl_qdrant import Layout, QdrantStore

from qwen3vl import Document, Embedder, Store, ingest
from qwen3vl.loaders import Loader
from tests.support.fake_embedder import Precomputed, passages, vector
from tests.test_ingest import draw


class Words(Embeddings):
    """LangChain's side of the precomputed vectors."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return vector({"text": text}).tolist()  # type: ignore[no-any-return]


DOCUMENTS = [
    *passages(10),
    Document("a.png", "picture", "c1", image="/pictures/a.png", metadata={"artist": "Ann"}),
    Document("https://example.com/b.png", "picture", image="https://example.com/b.png", text="a caption"),
    Document("b.pdf", "page", "c2", locator="page=3", text="words", image="b.pdf#page=3", fused=False),
    Document("c.mp4", "clip", "c3", locator="t=0,30", video="c.mp4#t=0,30", metadata={"start": 0.0}),
]


def filled(store: Store) -> Store:
    assert ingest(DOCUMENTS, Precomputed(), store).added == len(DOCUMENTS)
    return store


@pytest.fixture(params=[None, 8], ids=["full", "short"])
def qdrant(request: pytest.FixtureRequest) -> QdrantClient:
    client = QdrantClient(":memory:")
    filled(QdrantStore(client, layout=Layout(short=request.param)))
    return client


@pytest.fixture
def chroma(tmp_path: Path) -> Any:
    client = chromadb.PersistentClient(str(tmp_path / "chroma"))
    filled(ChromaStore(client))
    return client


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_langchain_qdrant(qdrant: QdrantClient, document: Document) -> None:
    store = QdrantVectorStore(qdrant, "qwen3vl", Words())
    ((found, score),) = store.similarity_search_with_score_by_vector(vector(document.input).tolist(), 1)
    assert score == pytest.approx(1, abs=1e-5)
    metadata = {key: value for key, value in found.metadata.items() if key not in ("_id", "_collection_name")}
    assert found.page_content == document.text
    assert Document.from_payload({"page_content": found.page_content, "metadata": metadata}) == document


def test_langchain_qdrant_by_words_and_filter(qdrant: QdrantClient) -> None:
    store = QdrantVectorStore(qdrant, "qwen3vl", Words())
    wanted = models.Filter(must=[models.FieldCondition(key="metadata.number", match=models.MatchValue(value=4))])
    (found,) = store.as_retriever(search_kwargs={"k": 3, "filter": wanted}).invoke(DOCUMENTS[4].text)
    assert found.page_content == DOCUMENTS[4].text
    assert found.metadata["deep"] == {"x": [1]}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_langchain_chroma(chroma: Any, document: Document) -> None:
    store = Chroma("qwen3vl", Words(), client=chroma)
    ((found, distance),) = store.similarity_search_by_vector_with_relevance_scores(vector(document.input).tolist(), 1)
    assert distance == pytest.approx(0, abs=1e-5)
    assert found.page_content == document.text
    told = {
        "source": document.source,
        "locator": document.locator,
        "kind": document.kind,
        "content_hash": document.content_hash,
    }
    media = {key: value for key, value in (("image", document.image), ("video", document.video)) if value}
    assert (told | media).items() <= found.metadata.items()
    scalars = {key: value for key, value in document.metadata.items() if key not in ("tags", "deep")}
    assert scalars.items() <= found.metadata.items()


def asked(document: Document, **options: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=vector(document.input).tolist(), similarity_top_k=1, **options)


def check_node(node: Any, document: Document) -> None:
    """A node holds the document's text, its metadata whole, and its picture where LlamaIndex can open it."""
    assert node.get_content(metadata_mode=MetadataMode.NONE) == document.text
    metadata = {key: value for key, value in node.metadata.items() if not key.startswith("_")}
    assert Document.from_payload({"page_content": document.text, "metadata": metadata}) == document
    if document.kind == "picture":
        assert isinstance(node, ImageNode)
        assert document.image in (node.image_path, node.image_url)
    else:
        assert type(node) is TextNode


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_llama_index_qdrant(qdrant: QdrantClient, document: Document) -> None:
    result: Any = LlamaQdrant("qwen3vl", client=qdrant).query(asked(document))
    assert result.similarities == pytest.approx([1], abs=1e-5)
    check_node(result.nodes[0], document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_llama_index_chroma(chroma: Any, document: Document) -> None:
    store: Any = ChromaVectorStore(chroma_collection=chroma.get_collection("qwen3vl"))
    check_node(store.query(asked(document)).nodes[0], document)
    only = MetadataFilters(filters=[MetadataFilter(key="source", value=document.source)])
    check_node(store.query(asked(document, filters=only)).nodes[0], document)


def test_llama_index_deletes_by_source(chroma: Any, qdrant: QdrantClient) -> None:
    ChromaVectorStore(chroma_collection=chroma.get_collection("qwen3vl")).delete("notes/1.md")
    LlamaQdrant("qwen3vl", client=qdrant).delete("notes/1.md")
    assert ChromaStore(chroma).count() == QdrantStore(qdrant).count() == len(DOCUMENTS) - 3


def test_chroma_alone_by_words_and_pictures(tmp_path: Path, tiny_embedder: Embedder) -> None:
    """The collection remembers its embedding function: plain Chroma finds pictures with nothing but its name."""
    made = draw(tmp_path / "in", 40)
    client: Any = chromadb.PersistentClient(str(tmp_path / "chroma"))
    ingest(Loader().load([tmp_path / "in"]), tiny_embedder, ChromaStore(client))
    collection = client.get_collection("qwen3vl", data_loader=MediaLoader())
    words = [scene.caption() for _, scene in made[:20]]
    found = collection.query(query_texts=words, n_results=1, include=["uris", "data", "distances"])
    right = [uri == [str(path)] for uri, (path, _) in zip(found["uris"] or [], made, strict=False)]
    assert sum(right) >= 17
    assert (found["data"] or [])[0][0].shape == (96, 96, 3)
    seen = [np.asarray(scene.draw(Random(3))) for _, scene in made[:5]]
    by_picture = collection.query(query_images=seen, n_results=1, include=["uris"])
    assert [uris[0] for uris in by_picture["uris"] or []] == [str(path) for path, _ in made[:5]]
    # The same vectors as ours, to the last bit.
    function = Qwen3VLEmbeddingFunction.of(tiny_embedder.recipe)
    np.testing.assert_array_equal(np.stack(function(words)), tiny_embedder.embed(words))
    again = Qwen3VLEmbeddingFunction.build_from_config(function.get_config())
    assert again.embedder is function.embedder


def test_the_instruction_of_queries() -> None:
    function = Qwen3VLEmbeddingFunction("tiny", query_instruction="Find the picture.", device="cpu")
    plain, asked_for = function(["a red star"])[0], function.embed_query(["a red star"])[0]
    np.testing.assert_array_equal(
        asked_for, function.embedder.embed(["a red star"], instruction="Find the picture.")[0]
    )
    assert not np.allclose(plain, asked_for, atol=1e-3)
    with pytest.raises(ValueError, match="model"):
        function.validate_config_update(function.get_config(), {**function.get_config(), "model": "other"})
    function.validate_config_update(function.get_config(), {**function.get_config(), "query_instruction": "x"})


def test_media_loader_opens_what_ours_opens(tmp_path: Path, media: dict[str, Path], server: Any) -> None:
    """Files, file:// and other URLs, data URIs, pictures and clips alike, told apart as the core does."""
    from qwen3vl import MediaPolicy

    server.pages["/a.png"] = (200, {}, media["odd"].read_bytes())
    server.pages["/clip.mp4?x=1"] = (200, {}, media["clip"].read_bytes())
    encoded = b64encode(media["odd"].read_bytes()).decode()
    load = MediaLoader(MediaPolicy(private_hosts=True))
    pictures = [str(media["odd"]), media["odd"].as_uri(), server.url("/a.png"), f"data:image/png;base64,{encoded}"]
    clips = [str(media["clip"]), server.url("/clip.mp4?x=1"), f"{media['clip']}#t=0,2"]
    for wanted, uris in ((load(pictures[:1])[0], pictures), (load(clips[:1])[0], clips[:2])):
        for found in load(uris):
            np.testing.assert_array_equal(found, wanted)
    (part,) = load(clips[2:])
    assert part is not None
    assert part.ndim == 3


def test_media_loader(tmp_path: Path, media: dict[str, Path]) -> None:
    from qwen3vl import MediaPolicy, PolicyError

    ((path, _),) = draw(tmp_path, 1)
    load = MediaLoader(MediaPolicy(folders=(tmp_path, media["clip"].parent)))
    picture, clip, none = load([str(path), str(media["clip"]), None])
    assert picture is not None
    assert picture.shape == (96, 96, 3)
    assert clip is not None
    assert clip.dtype == np.uint8
    assert clip.ndim == 3
    assert none is None
    with pytest.raises(PolicyError):
        load(["http://127.0.0.1/a.png"])
    with pytest.raises(PolicyError):
        load(["/etc/hostname"])
