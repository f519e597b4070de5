"""Qwen3VLSplitter: texts are split, nodes with media are passed on, in pipelines and indexes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    MarkdownNodeParser,
    NodeParser,
    SemanticSplitterNodeParser,
    SentenceSplitter,
    TokenTextSplitter,
)
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    MediaResource,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.embeddings.qwen3_vl import MediaKeys, Qwen3VLEmbedding
from llama_index.embeddings.qwen3_vl.nodes import node_input
from llama_index.node_parser.qwen3_vl import Qwen3VLSplitter
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLRerank

from qwen3vl import BatchError, MediaPolicy
from tests.support.sample_library import STAR

LONG_TEXT = "\n\n".join(f"Sentence {number} of a text about a red circle." for number in range(40))


def media_nodes(folder: Path) -> dict[str, BaseNode]:
    """Nodes and documents with media of every kind, by id."""
    star, mover = folder / "star.png", folder / "mover.mp4"
    data = base64.b64encode(star.read_bytes())
    nodes: list[Any] = [
        ImageNode(image_path=str(star), id_="image node"),
        ImageNode(image_path=str(star), text=STAR.caption(), id_="image node with text"),
        ImageNode(image=data.decode(), image_mimetype="image/png", id_="image node with data"),
        Node(image_resource=MediaResource(path=star), id_="node with an image"),
        Node(video_resource=MediaResource(path=mover), id_="node with a video"),
        TextNode(text="", metadata={"image": str(star)}, id_="text node with a reference"),
        ImageDocument(image_path=str(star), id_="image document"),
        ImageDocument(image_path=str(star), text=STAR.caption(), metadata={"page": 3}, id_="image document with text"),
        Document(image_resource=MediaResource(data=data, mimetype="image/png"), id_="document with image data"),
        Document(video_resource=MediaResource(path=mover), text="it moves", id_="document with a video"),
        Document(text="", metadata={"video": str(mover)}, id_="document with a reference"),
    ]
    return {node.node_id: node for node in nodes}


def sentence_splitter(chunk_size: int) -> SentenceSplitter:
    """A splitter at line ends: the default needs data of NLTK, which refuses to read files with several hard links."""
    return SentenceSplitter(chunk_size=chunk_size, chunk_overlap=0, chunking_tokenizer_fn=str.splitlines)


def parsers(embed_model: Qwen3VLEmbedding) -> dict[str, NodeParser]:
    return {
        "sentence": sentence_splitter(64),
        "token": TokenTextSplitter(chunk_size=64, chunk_overlap=0),
        "markdown": MarkdownNodeParser(),
        "hierarchical": HierarchicalNodeParser.from_defaults(
            node_parser_ids=["large", "small"],
            node_parser_map={"large": sentence_splitter(256), "small": sentence_splitter(64)},
        ),
        "semantic": SemanticSplitterNodeParser(embed_model=embed_model, sentence_splitter=str.splitlines),
    }


def source_id(node: BaseNode) -> str | None:
    return None if node.source_node is None else node.source_node.node_id


@pytest.mark.parametrize("name", ["sentence", "token", "markdown", "hierarchical", "semantic"])
async def test_texts_are_split_and_media_are_passed_on_in_order(
    name: str, embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    parser = parsers(embed_model)[name]
    media = media_nodes(library_folder)
    text = Document(text=LONG_TEXT, id_="text")
    first, *others = media.values()
    inputs: list[Any] = [first, text, *others, Document(text="short", id_="short text")]
    splitter = Qwen3VLSplitter(parser=parser)
    expected_texts = [node.get_content() for node in parser([text])]
    runs = [splitter(inputs)]
    if name != "hierarchical":  # LlamaIndex's awaited method of this parser does not split
        runs.append(await splitter.acall(inputs))
    for results in runs:
        texts = [node for node in results if source_id(node) == "text"]
        assert [node.get_content() for node in texts] == expected_texts
        assert list(dict.fromkeys(map(source_id, results))) == [node.node_id for node in inputs]
        passed = {str(source_id(node)): node for node in results if source_id(node) in media}
        assert len(passed) == len(results) - len(texts) - len(parser([inputs[-1]])) == len(media)
        for node_id, node in passed.items():
            assert node_input(node) == node_input(media[node_id])
            assert media[node_id].metadata.items() <= node.metadata.items()
            assert not isinstance(node, Document)
            assert (node.node_id == node_id) == (not isinstance(media[node_id], Document))


def test_relationships_of_nodes_stay(library_folder: Path) -> None:
    page = Document(text="a page", id_="page")
    next_node = TextNode(text="after", id_="next")
    image = ImageNode(
        image_path=str(library_folder / "star.png"),
        relationships={
            NodeRelationship.SOURCE: page.as_related_node_info(),
            NodeRelationship.NEXT: next_node.as_related_node_info(),
        },
    )
    (node,) = Qwen3VLSplitter()([image])
    assert isinstance(node, ImageNode)
    assert node.relationships == image.relationships
    assert node.ref_doc_id == "page"


def test_media_keys_name_the_metadata_of_references() -> None:
    node = TextNode(text="\n\n".join(["a photo of a red circle"] * 40), metadata={"photo": "red.png"})
    parser = sentence_splitter(64)
    assert len(Qwen3VLSplitter(parser=parser)([node])) > 1
    (passed,) = Qwen3VLSplitter(parser=parser, media_keys=MediaKeys(image=("photo",)))([node])
    assert passed.get_content() == node.get_content()


def test_reference_that_is_no_str_fails_alone_when_it_is_embedded(
    embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    broken = TextNode(text="", metadata={"image": 7}, id_="broken")
    nodes = Qwen3VLSplitter()([broken, ImageNode(image_path=str(library_folder / "star.png"))])
    with pytest.raises(BatchError, match=r"item 0 \(node broken\): its metadata 'image' is of type int"):
        embed_model(nodes)


def build_with_pipeline(documents: list[Document], splitter: Qwen3VLSplitter, embed_model: Qwen3VLEmbedding) -> Any:
    nodes = IngestionPipeline(transformations=[splitter, embed_model]).run(documents=documents)
    return VectorStoreIndex(nodes, embed_model=embed_model)


def build_from_documents(documents: list[Document], splitter: Qwen3VLSplitter, embed_model: Qwen3VLEmbedding) -> Any:
    return VectorStoreIndex.from_documents(documents, transformations=[splitter], embed_model=embed_model)


@pytest.mark.parametrize("build", [build_with_pipeline, build_from_documents])
def test_index_of_split_documents_finds_images_videos_and_texts(
    build: Callable[..., VectorStoreIndex], embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    star, mover = library_folder / "star.png", library_folder / "mover.mp4"
    documents: list[Document] = [
        ImageDocument(image_path=str(star), id_="star"),
        Document(video_resource=MediaResource(path=mover), id_="mover"),
        Document(text=LONG_TEXT, id_="text"),
        ImageDocument(image_path=str(library_folder / "0.png"), id_="other"),
    ]
    index = build(documents, Qwen3VLSplitter(parser=sentence_splitter(64)), embed_model)
    retriever = index.as_retriever(similarity_top_k=1)
    queries: list[tuple[QueryBundle, str]] = [
        (embed_model.query_bundle({"image": str(star)}), "star"),
        (embed_model.query_bundle({"video": str(mover)}), "mover"),
        (QueryBundle("Sentence 30 of a text about a red circle."), "text"),
    ]
    for query, document_id in queries:
        assert retriever.retrieve(query)[0].node.ref_doc_id == document_id
    index.delete_ref_doc("star")
    assert retriever.retrieve(embed_model.query_bundle({"image": str(star)}))[0].node.ref_doc_id != "star"


def test_pipeline_with_a_document_store_replaces_a_changed_image(
    embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    """The vector of an image that is a node, or a document, is found again by the id of its source."""
    store = SimpleVectorStore()
    pipeline = IngestionPipeline(
        transformations=[Qwen3VLSplitter(), embed_model], docstore=SimpleDocumentStore(), vector_store=store
    )
    for name in ("star.png", "0.png", "0.png"):
        path = str(library_folder / name)
        pipeline.run(
            nodes=[ImageNode(image_path=path, id_="node")], documents=[ImageDocument(image_path=path, id_="d")]
        )
        assert len(store.data.embedding_dict) == 2
        assert sorted(store.data.text_id_to_ref_doc_id.values()) == ["d", "node"]


def test_cached_pipeline_does_not_take_one_image_for_another(
    embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    pipeline = IngestionPipeline(transformations=[Qwen3VLSplitter(), embed_model])
    paths = [str(library_folder / name) for name in ("star.png", "0.png", "star.png")]
    star, other, again = (pipeline.run(documents=[ImageDocument(image_path=path)])[0] for path in paths)
    assert [node.image_path for node in (star, other, again)] == paths  # type: ignore[attr-defined]
    assert star.embedding == again.embedding != other.embedding
    assert star.node_id == again.node_id  # from the cache


def test_node_that_a_splitter_emptied_is_an_error_that_names_it_and_the_cause(
    embed_model: Qwen3VLEmbedding, library_folder: Path, policy: MediaPolicy
) -> None:
    image = ImageNode(image_path=str(library_folder / "star.png"), id_="star")
    nodes = SentenceSplitter(id_func=lambda *_: "emptied")([image])
    message = r"node emptied\): it is empty: it has no text, image or video. LlamaIndex's splitters .* Qwen3VLSplitter"
    with pytest.raises(BatchError, match=message):
        embed_model([*nodes, TextNode(text="a")])
    with pytest.raises(BatchError, match=message):
        IngestionPipeline(transformations=[embed_model]).run(nodes=nodes)
    scored = [NodeWithScore(node=node) for node in (*nodes, TextNode(text="a"))]
    _, unread = Qwen3VLRerank(model="tiny", policy=policy).postprocess_nodes(scored, query_str="a")
    assert "Qwen3VLSplitter" in unread.node.metadata["rerank_error"]


def test_settings_are_restored_from_a_dict() -> None:
    splitter = Qwen3VLSplitter(
        parser=SentenceSplitter(chunk_size=99, chunk_overlap=0), media_keys=MediaKeys(("photo",))
    )
    restored = Qwen3VLSplitter.from_dict(json.loads(json.dumps(splitter.to_dict())))
    assert restored == splitter != Qwen3VLSplitter()
    assert isinstance(restored.parser, SentenceSplitter)
    named = Qwen3VLSplitter(id_func=lambda _, document: document.node_id)
    with pytest.raises(ValueError, match="the function <lambda> that makes ids is not stored"):
        Qwen3VLSplitter.from_dict(named.to_dict())
