"""The flows of a user, each asserted on the right scenes coming back; and the traps of the framework, one by one."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, LLMMetadata
from llama_index.core.indices.multi_modal import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.llms.mock import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    MediaResource,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding, document_of_node, node_of_document
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures, Qwen3VLRerank
from llama_index.readers.qwen3_vl import Qwen3VLReader
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from PIL import Image
from qdrant_client import QdrantClient
from qwen3vl_chroma import ChromaStore

from qwen3vl import BatchError, Document, Embedder, InputError, Loader, MediaPolicy, Retriever, ingest
from tests.support.sample_library import MOVER, SLIDE, STAR


@pytest.fixture(scope="module")
def policy(mixed: Path) -> MediaPolicy:
    return MediaPolicy(folders=(mixed,))


@pytest.fixture(scope="module")
def model(policy: MediaPolicy) -> Qwen3VLEmbedding:
    return Qwen3VLEmbedding(model_name="tiny", device="cpu", policy=policy)


@pytest.fixture
def nodes(mixed: Path) -> list[BaseNode]:
    """All that can be read, as the reader gives it."""
    return [node for node in Qwen3VLReader().lazy_load_data(mixed) if "corrupt" not in node.metadata["source"]]


def bare(mixed: Path, *names: str) -> list[ImageNode]:
    """Nodes of a user's own: a picture, no text, no metadata."""
    return [ImageNode(image_path=str(mixed / name)) for name in names]


def source(found: Sequence[NodeWithScore]) -> str:
    return Path(found[0].node.metadata["source"]).name


def check_retrieval(retriever: Any, model: Qwen3VLEmbedding, mixed: Path) -> None:
    """Each kind, by words, by picture and by a bundle with a vector."""
    assert source(retriever.retrieve(STAR.caption())) == "star.png"
    assert source(retriever.retrieve(model.query_bundle({"image": str(mixed / "star.png")}))) == "star.png"
    assert source(retriever.retrieve(model.query_bundle({"video": str(mixed / "mover.mp4")}))) == "mover.mp4"
    (note, *_) = retriever.retrieve("a cyan square on the left")
    assert "cyan square" in note.node.get_content()
    assert "mover.mp4" in [Path(each.node.metadata["source"]).name for each in retriever.retrieve(MOVER.caption())]


def vector_of(node: BaseNode, tiny_embedder: Embedder) -> Any:
    return tiny_embedder.embed([document_of_node(node).input])[0]


def open_store(kind: str, folder: Path) -> tuple[Any, Any]:
    """A vector store, and what closes it."""
    if kind == "simple":
        return SimpleVectorStore(), lambda: None
    if kind == "chroma":
        client: Any = chromadb.PersistentClient(str(folder / "chroma"))
        made = client.get_or_create_collection("flow", metadata={"hnsw:space": "cosine"}, embedding_function=None)
        return ChromaVectorStore(chroma_collection=made), client.close
    qdrant = QdrantClient(path=str(folder / "qdrant"))
    return QdrantVectorStore("flow", client=qdrant), qdrant.close


@pytest.mark.parametrize("way", ["nodes", "documents", "embedded", "inserted", "async", "ainserted", "pipeline"])
@pytest.mark.parametrize("kind", ["simple", "chroma", "qdrant"])
async def test_an_index(
    kind: str, way: str, nodes: list[BaseNode], model: Qwen3VLEmbedding, mixed: Path, tmp_path: Path
) -> None:
    """Built in each of the framework's ways, closed, reopened from disk."""
    store, close = open_store(kind, tmp_path)
    context = StorageContext.from_defaults(vector_store=store)
    given: Any = nodes
    if way == "nodes":
        index = VectorStoreIndex(given, storage_context=context, embed_model=model)
    elif way == "documents":
        index = VectorStoreIndex.from_documents(given, storage_context=context, embed_model=model)
    elif way == "embedded":
        index = VectorStoreIndex(list(model(given)), storage_context=context, embed_model=model)
    elif way == "inserted":
        index = VectorStoreIndex([], storage_context=context, embed_model=model)
        index.insert_nodes(given)
    elif way in ("async", "ainserted"):
        if kind == "qdrant":
            pytest.skip("LlamaIndex's Qdrant store awaits a client of its own, which a folder does not have")
        built = given if way == "async" else []
        index = VectorStoreIndex(built, storage_context=context, embed_model=model, use_async=way == "async")
        if way == "ainserted":
            await index.ainsert_nodes(given)
        (hit, *_) = await index.as_retriever(similarity_top_k=8).aretrieve(STAR.caption())
        assert source([hit]) == "star.png"
    elif kind == "simple":  # which keeps no texts
        index = VectorStoreIndex(IngestionPipeline(transformations=[model]).run(nodes=given), embed_model=model)
    else:
        IngestionPipeline(transformations=[model], vector_store=store).run(nodes=given)
        index = VectorStoreIndex.from_vector_store(store, embed_model=model)
    check_retrieval(index.as_retriever(similarity_top_k=8), model, mixed)
    if kind == "simple":
        return
    close()
    again, close = open_store(kind, tmp_path)
    index = VectorStoreIndex.from_vector_store(again, embed_model=model)
    check_retrieval(index.as_retriever(similarity_top_k=8), model, mixed)
    (found,) = index.as_retriever(similarity_top_k=1).retrieve(STAR.caption())
    star = document_of_node(found.node)
    assert (star.image, star.kind, star.text) == (str(mixed / "star.png"), "picture", "")
    close()


async def test_the_same_vectors_on_every_way(
    nodes: list[BaseNode], model: Qwen3VLEmbedding, tiny_embedder: Embedder, mixed: Path
) -> None:
    index = VectorStoreIndex(nodes, embed_model=model)
    wanted = tiny_embedder.embed([document_of_node(node).input for node in nodes]).tolist()
    stored = index.vector_store.to_dict()["embedding_dict"]
    assert [stored[node.node_id] for node in nodes] == wanted
    ingested = IngestionPipeline(transformations=[model]).run(nodes=nodes)
    assert [node.embedding for node in ingested] == wanted
    awaited = VectorStoreIndex([], embed_model=model)
    await awaited.ainsert_nodes(nodes)
    stored = awaited.vector_store.to_dict()["embedding_dict"]
    assert [stored[node.node_id] for node in nodes] == wanted
    assert [node.embedding for node in await IngestionPipeline(transformations=[model]).arun(nodes=nodes)] == wanted


def test_a_pipeline_with_its_cache(model: Qwen3VLEmbedding, mixed: Path, tiny_embedder: Embedder) -> None:
    """Pictures without text keep their own vectors, on the second run and in the next pipeline too."""
    cache = IngestionCache()
    pipeline = IngestionPipeline(transformations=[model], cache=cache)
    star, other = bare(mixed, "star.png", "0.png")
    wanted = tiny_embedder.embed([{"image": node.image_path} for node in (star, other)]).tolist()
    both = pipeline.run(nodes=bare(mixed, "star.png", "0.png"))
    assert [node.embedding for node in both] == wanted
    again = pipeline.run(nodes=bare(mixed, "star.png", "0.png"))
    assert [node.embedding for node in again] == wanted
    assert [node.node_id for node in again] == [node.node_id for node in both]  # from the cache
    (one,) = pipeline.run(nodes=[star])
    (two,) = IngestionPipeline(transformations=[model], cache=cache).run(nodes=[other])
    np.testing.assert_allclose(np.asarray([one.embedding, two.embedding]), wanted, atol=2e-6)
    assert (one.node_id, two.node_id) == (star.node_id, other.node_id)


def test_a_copy_is_another_node(model: Qwen3VLEmbedding, mixed: Path, tmp_path: Path) -> None:
    """The cache gives back whole nodes: a file of equal bytes elsewhere is not to become the first one."""
    (tmp_path / "copy.png").write_bytes((mixed / "star.png").read_bytes())
    both = Qwen3VLEmbedding(model_name="tiny", policy=MediaPolicy(folders=(mixed, tmp_path)))
    pipeline = IngestionPipeline(transformations=[both])
    (first,) = pipeline.run(nodes=bare(mixed, "star.png"))
    (second,) = pipeline.run(nodes=bare(tmp_path, "copy.png"))
    assert second.image_path == str(tmp_path / "copy.png")  # type: ignore[attr-defined]
    assert second.embedding == first.embedding


async def test_an_awaited_pipeline(model: Qwen3VLEmbedding, mixed: Path) -> None:
    pipeline = IngestionPipeline(transformations=[model])
    (one,) = await pipeline.arun(nodes=bare(mixed, "star.png"))
    (two,) = await pipeline.arun(nodes=bare(mixed, "0.png"))
    assert one.embedding != two.embedding


def test_a_changed_file_is_another_picture(model: Qwen3VLEmbedding, mixed: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    open_model = Qwen3VLEmbedding(model_name="tiny", policy=MediaPolicy(folders=(tmp_path,)))
    pipeline = IngestionPipeline(transformations=[open_model])
    vectors = []
    for name in ("star.png", "0.png", "star.png"):
        path.write_bytes((mixed / name).read_bytes())
        (node,) = pipeline.run(nodes=[ImageNode(image_path=str(path))])
        vectors.append(node.embedding)
    assert vectors[0] == vectors[2] != vectors[1]


def test_image_nodes_among_others(model: Qwen3VLEmbedding, mixed: Path, tmp_path: Path) -> None:
    """A fresh index over Qdrant searches its ImageNodes alone; opened anew it searches all."""
    nodes = [*bare(mixed, "star.png", "0.png"), TextNode(text="a cyan square on the left", metadata={"source": "note"})]
    store, close = open_store("qdrant", tmp_path)
    context = StorageContext.from_defaults(vector_store=store)
    fresh = VectorStoreIndex(list(model(nodes)), storage_context=context, embed_model=model)
    assert len(fresh.as_retriever(similarity_top_k=5).retrieve("a cyan square on the left")) == 2
    anew = VectorStoreIndex.from_vector_store(store, embed_model=model).as_retriever(similarity_top_k=5)
    assert source(anew.retrieve("a cyan square on the left")) == "note"
    close()


def test_two_indexes(model: Qwen3VLEmbedding, mixed: Path) -> None:
    """LlamaIndex's index of two stores, one for texts and one for pictures."""
    nodes = Qwen3VLReader(image_nodes=True).load_data([mixed / "star.png", mixed / "0.png", mixed / "notes.md"])
    index = MultiModalVectorStoreIndex(nodes, embed_model=model, image_embed_model=model)
    retriever = index.as_retriever(similarity_top_k=4, image_similarity_top_k=4)
    assert source(retriever.text_to_image_retrieve(STAR.caption())) == "star.png"
    assert source(retriever.image_to_image_retrieve(str(mixed / "star.png"))) == "star.png"
    (note, *_) = retriever.text_retrieve("a cyan square on the left")
    assert "cyan square" in note.node.get_content()
    both = [each.node for each in retriever.retrieve(STAR.caption())]
    assert {"star.png", "notes.md"} <= {Path(node.metadata["source"]).name for node in both}
    with pytest.raises(InputError, match="query_bundle"):
        retriever.retrieve(QueryBundle(query_str="", embedding=model.get_query_embedding("a")))


def test_captions_are_fused_in_an_index(model: Qwen3VLEmbedding, mixed: Path, tiny_embedder: Embedder) -> None:
    star = str(mixed / "star.png")
    index = VectorStoreIndex([ImageNode(text="a caption", image_path=star, id_="1")], embed_model=model)
    wanted = tiny_embedder.embed([{"text": "a caption", "image": star}])[0].tolist()
    assert index.vector_store.to_dict()["embedding_dict"]["1"] == wanted


def test_bare_pictures_in_an_index(model: Qwen3VLEmbedding, mixed: Path) -> None:
    """LlamaIndex drops nodes without words before it asks anybody: embedded first, they have one."""
    embedded = model(bare(mixed, "star.png", "0.png"))
    found = VectorStoreIndex(list(embedded), embed_model=model).as_retriever().retrieve(STAR.caption())
    assert len(found) == 2
    assert found[0].node.image_path == str(mixed / "star.png")  # type: ignore[attr-defined]


def test_resources_and_clips_in_stores(model: Qwen3VLEmbedding, mixed: Path, tmp_path: Path) -> None:
    nodes = [
        Node(image_resource=MediaResource(path=mixed / "star.png"), extra_info={"source": "star"}),
        Node(video_resource=MediaResource(path=mixed / "mover.mp4"), extra_info={"source": "mover"}),
        Node(text_resource=MediaResource(text="a cyan square on the left"), extra_info={"source": "note"}),
    ]
    store, close = open_store("qdrant", tmp_path)
    VectorStoreIndex(
        list(model(nodes)), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=model
    )
    close()
    store, close = open_store("qdrant", tmp_path)
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=model).as_retriever(similarity_top_k=3)
    (found, *_) = retriever.retrieve(model.query_bundle({"video": str(mixed / "mover.mp4")}))
    assert found.node.metadata["source"] == "mover"
    assert document_of_node(found.node).video == str(mixed / "mover.mp4")
    assert source(retriever.retrieve(STAR.caption())) == "star"
    close()


def test_documents_keep_their_media_in_stores(model: Qwen3VLEmbedding, mixed: Path, tmp_path: Path) -> None:
    """LlamaIndex gives back documents as texts: the reference is in their metadata."""
    star, mover = mixed / "star.png", mixed / "mover.mp4"
    documents = [
        ImageDocument(image_path=str(star), extra_info={"source": "star"}),
        LlamaDocument(video_resource=MediaResource(path=mover), text="a clip", extra_info={"source": "mover"}),
    ]
    store, close = open_store("qdrant", tmp_path)
    IngestionPipeline(transformations=[model], vector_store=store).run(documents=documents)
    assert documents[0].metadata == {"source": "star"}
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=model).as_retriever(similarity_top_k=2)
    hits = retriever.retrieve(STAR.caption())
    found = {each.node.metadata["source"]: document_of_node(each.node) for each in hits}
    assert (found["star"].image, found["star"].text) == (str(star), "")
    assert (found["mover"].video, found["mover"].text) == (str(mover), "a clip")
    close()


def test_what_llama_index_would_lose_before_we_see_it(model: Qwen3VLEmbedding, mixed: Path) -> None:
    """Through our documents the reference is in the metadata, which splitters and indexes leave alone."""
    clip = LlamaDocument(video_resource=MediaResource(path=mixed / "mover.mp4"), text="a clip")
    (lost,) = SentenceSplitter()([clip])
    assert document_of_node(lost).video is None
    (kept,) = SentenceSplitter()([node_of_document(document_of_node(clip))])
    assert document_of_node(kept).video == str(mixed / "mover.mp4")
    # An index of two stores takes no pictures but ImageNodes, and says nothing of others.
    resource = Node(image_resource=MediaResource(path=mixed / "star.png"), id_="star")
    picture = node_of_document(document_of_node(resource), image_nodes=True)
    index = MultiModalVectorStoreIndex([picture], embed_model=model, image_embed_model=model)
    (found,) = index.as_retriever().text_to_image_retrieve(STAR.caption())
    assert found.node.image_path == str(mixed / "star.png")  # type: ignore[attr-defined]
    # An ImageNode drops the bytes of a resource: that is an error, and not the vector of nothing.
    with pytest.raises(BatchError, match="it is empty"):
        model([ImageNode(image_resource=MediaResource(data=(mixed / "star.png").read_bytes()))])


def test_media_outlive_splitters(nodes: list[BaseNode]) -> None:
    split = SentenceSplitter(chunk_size=256, chunk_overlap=0)(nodes)
    for before, after in zip(nodes, split, strict=True):
        assert document_of_node(after).input == document_of_node(before).input


def test_the_reader(mixed: Path, tmp_path: Path) -> None:
    reader = Qwen3VLReader()
    loaded = reader.load_data(mixed)
    core = [each for each in Loader().load(mixed) if isinstance(each, Document)]
    assert [document_of_node(node) for node in loaded] == core
    assert [node_of_document(each).to_dict() for each in core] == [node.to_dict() for node in loaded]
    assert {type(node) for node in loaded} == {TextNode}
    kinds = {node.metadata["kind"]: type(node) for node in Qwen3VLReader(image_nodes=True).load_data(mixed)}
    assert kinds == {"picture": ImageNode, "page": TextNode, "clip": TextNode, "text": TextNode}
    assert [Path(name).name for name in reader.skipped] == ["table.csv"]
    assert {node.metadata["by"] for node in reader.load_data(mixed, extra_info={"by": "Ann"})} == {"Ann"}
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-nothing")
    assert reader.load_data([tmp_path]) == []
    assert [Path(failure.source).name for failure in reader.failures] == ["broken.pdf"]
    with pytest.raises(InputError, match=r"broken\.pdf"):
        Qwen3VLReader(on_error="raise").load_data(tmp_path)


def test_collections_of_either_side(
    nodes: list[BaseNode], model: Qwen3VLEmbedding, mixed: Path, tmp_path: Path
) -> None:
    """Nodes go through `ingest`; LlamaIndex's index opens what it wrote, nodes as the reader's."""
    client = chromadb.PersistentClient(str(tmp_path))
    store = ChromaStore(client, "both")
    assert ingest([document_of_node(node) for node in nodes], model.embedder, store).added == len(nodes)
    opened = ChromaVectorStore(chroma_collection=client.get_collection("both"))
    index = VectorStoreIndex.from_vector_store(opened, embed_model=model)
    check_retrieval(index.as_retriever(similarity_top_k=8), model, mixed)
    (found,) = index.as_retriever(similarity_top_k=1).retrieve(STAR.caption())
    (read,) = Qwen3VLReader(image_nodes=True).load_data(mixed / "star.png")
    left = {"id_", "relationships"}
    assert found.node.model_dump(exclude=left) == read.model_dump(exclude=left)
    (hit, *_) = Retriever(model.embedder, store).search(STAR.caption(), 1)
    assert node_of_document(hit.document).metadata == found.node.metadata


class Asked(MockLLM):
    """A chat model that keeps what it was shown."""

    shown: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        self.shown.extend(messages)
        return ChatResponse(message=ChatMessage(role="assistant", content="a yellow cross"))

    async def achat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        return self.chat(messages, **options)


@pytest.fixture
def asked() -> Asked:
    return Asked(max_tokens=None, is_chat_model=True)


@pytest.mark.skipif(
    "multimodal" not in inspect.signature(RetrieverQueryEngine.from_args).parameters,
    reason="query engines of this LlamaIndex show no pictures",
)
async def test_a_query_engine(
    nodes: list[BaseNode], model: Qwen3VLEmbedding, policy: MediaPolicy, asked: Asked, mixed: Path
) -> None:
    """Retrieved, judged with the pictures, and shown to a language model: a page as it looks."""
    index = VectorStoreIndex(nodes, embed_model=model)
    engine = RetrieverQueryEngine.from_args(
        retriever=index.as_retriever(similarity_top_k=8),
        llm=asked,
        multimodal=True,
        node_postprocessors=[Qwen3VLRerank(model="tiny", policy=policy, top_n=2), Qwen3VLPictures(policy=policy)],
    )
    answers = [engine.query(SLIDE.caption()), await engine.aquery(SLIDE.caption())]
    for answer in answers:
        assert str(answer) == "a yellow cross"
        assert source(answer.source_nodes) == "slides.pdf"
        assert (answer.source_nodes[0].score or 0) > 0.5
    pictures = [block for message in asked.shown for block in message.blocks if isinstance(block, ImageBlock)]
    assert len(pictures) >= 2
    shown = np.asarray(Image.open(BytesIO(pictures[0].resolve_image().read())).convert("RGB"), dtype=float)
    red, green, blue = shown.reshape(-1, 3)[shown.std(axis=2).reshape(-1) > 40].mean(axis=0)
    assert min(red, green) > blue + 60  # yellow on white


def test_pictures_for_a_language_model(nodes: list[BaseNode], policy: MediaPolicy, mixed: Path) -> None:
    given = [NodeWithScore(node=node, score=0.5) for node in nodes]
    shown = Qwen3VLPictures(policy=policy, side=64).postprocess_nodes(given)
    for before, after in zip(given, shown, strict=True):
        assert (after.score, after.node.node_id, after.node.metadata) == (
            0.5,
            before.node.node_id,
            before.node.metadata,
        )
        if before.node.metadata["kind"] == "text":
            assert after.node is before.node
        else:
            assert isinstance(after.node, ImageNode)
            assert max(Image.open(BytesIO(base64.b64decode(after.node.image or ""))).size) <= 66
    outside = NodeWithScore(node=ImageNode(image_path="/etc/hostname"))
    assert Qwen3VLPictures(policy=policy).postprocess_nodes([outside])[0].node is outside.node
    odd = NodeWithScore(node=TextNode(text="", metadata={"image": 7}))
    assert Qwen3VLPictures(policy=policy).postprocess_nodes([odd])[0].node is odd.node
