"""Nodes, documents and the reader."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.embeddings.qwen3_vl import MediaKeys, Qwen3VLEmbedding, document_of_node, node_of_document
from llama_index.embeddings.qwen3_vl.nodes import node_input
from llama_index.readers.qwen3_vl import Qwen3VLReader

from qwen3vl import BatchError, Document, Embedder, InputError, Loader
from tests.support.engines import assert_close


async def test_nodes_are_embedded_by_what_they_hold(
    embed_model: Qwen3VLEmbedding, tiny_embedder: Embedder, library_folder: Path
) -> None:
    star, mover = str(library_folder / "star.png"), str(library_folder / "mover.mp4")
    data = Path(star).read_bytes()
    image, fused = {"image": star}, {"text": "a star", "image": star}
    cases: list[tuple[Any, Any]] = [
        (TextNode(text="a star"), "a star"),
        (TextNode(text="a star", metadata={"by": "Ann"}), "by: Ann\n\na star"),
        (ImageNode(image_path=star), image),
        (ImageNode(image=base64.b64encode(data).decode()), image),
        (ImageNode(image_path=star, text="a star", metadata={"by": "Ann"}), fused),
        (ImageDocument(image_path=star), image),
        (Node(image_resource=MediaResource(path=Path(star))), image),
        (Node(image_resource=MediaResource(data=data, mimetype="image/png")), image),
        (Node(text_resource=MediaResource(text="a star"), image_resource=MediaResource(path=Path(star))), fused),
        (Node(video_resource=MediaResource(path=Path(mover))), {"video": mover}),
        (Node(video_resource=MediaResource(data=Path(mover).read_bytes())), {"video": mover}),
        (TextNode(text="", metadata={"image": star}), image),
        (TextNode(text="read only", metadata={"image": star, "fused": False}), image),
        (TextNode(text="", metadata={"video": mover}), {"video": mover}),
    ]
    nodes = [node for node, _ in cases]
    expected = tiny_embedder.embed([node_input(node) for node in nodes]).tolist()
    np.testing.assert_allclose(expected, tiny_embedder.embed([value for _, value in cases]), atol=2e-6)
    copies = [node.model_copy() for node in nodes]
    assert_close([node.embedding for node in await embed_model.acall(copies)], expected)
    before = [node.model_dump(exclude={"embedding"}) for node in nodes]
    embedded = embed_model(nodes)
    assert_close([node.embedding for node in embedded], expected)
    assert all(node.get_content(MetadataMode.EMBED) for node in embedded)  # so that indexes do not drop them
    assert [node.model_dump(exclude={"embedding"}) for node in nodes] == before
    # The text that they were given is not embedded.
    assert [node_input(node) for node in embedded] == [node_input(node) for node in nodes]


def test_media_keys_name_the_metadata_that_hold_references(
    embed_model: Qwen3VLEmbedding, tiny_embedder: Embedder, library_folder: Path
) -> None:
    keys = MediaKeys(image=("photo",))
    other = Qwen3VLEmbedding(model_name="tiny", policy=embed_model.policy, media_keys=keys)
    star = str(library_folder / "star.png")
    (node,) = other([TextNode(text="", metadata={"photo": star, "image": "a title"})])
    assert node.embedding == tiny_embedder.embed([{"image": star}])[0].tolist()


def test_nodes_stored_under_former_keys_read_as_the_same_documents() -> None:
    """`locator` and `content_hash` were stored as `place` and `content`."""
    page = Document("b.pdf", "page", "c2", locator="page=3", text="words", image="b.pdf#page=3", fused=False)
    passage = Document("n.md", "text", "c4", locator="lines=1,2", text="a passage", metadata={"by": "Ann"})
    for document in (page, passage):
        content = node_of_document(document).to_dict()
        for name, former in (("locator", "place"), ("content_hash", "content")):
            content["metadata"][former] = content["metadata"].pop(name)
            for excluded in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys"):
                content[excluded] = [former if key == name else key for key in content[excluded]]
        stored = metadata_dict_to_node({"_node_content": json.dumps(content), "_node_type": "TextNode"})
        assert {"place", "content"} <= stored.metadata.keys()
        assert document_of_node(stored) == document
        assert node_input(stored) == document.input == node_input(node_of_document(document))
        for former in ("place", "content"):
            assert f"{former}: " not in stored.get_content(MetadataMode.EMBED)
        assert "content: " not in stored.get_content(MetadataMode.LLM)


def test_nodes_exclude_the_documents_own_metadata_from_embeddings_and_prompts() -> None:
    node = node_of_document(Document("b.pdf", "page", "c2", locator="page=3", text="words", image="b.pdf#page=3"))
    assert (node.metadata["locator"], node.metadata["content_hash"]) == ("page=3", "c2")
    assert not {"place", "content"} & node.metadata.keys()
    assert {"locator", "content_hash", "kind", "image", "fused"} <= set(node.excluded_embed_metadata_keys)
    assert {"content_hash", "kind", "image", "fused"} <= set(node.excluded_llm_metadata_keys)
    assert "page=3" in node.get_content(MetadataMode.LLM)  # which page it is helps a language model to cite it


def test_splitters_keep_media_references(nodes: list[BaseNode]) -> None:
    parts = SentenceSplitter(chunk_size=256, chunk_overlap=0)(nodes)
    for node, part in zip(nodes, parts, strict=True):
        assert document_of_node(part).input == document_of_node(node).input


def test_splitters_drop_media_resources_unless_converted_first(library_folder: Path) -> None:
    clip = LlamaDocument(video_resource=MediaResource(path=library_folder / "mover.mp4"), text="a clip")
    (part,) = SentenceSplitter()([clip])
    assert document_of_node(part).video is None
    (part,) = SentenceSplitter()([node_of_document(document_of_node(clip))])
    assert document_of_node(part).video == str(library_folder / "mover.mp4")


def test_image_node_without_its_image_is_an_error(embed_model: Qwen3VLEmbedding, library_folder: Path) -> None:
    """LlamaIndex's `ImageNode` drops the bytes of a resource."""
    with pytest.raises(BatchError, match="it is empty"):
        embed_model([ImageNode(image_resource=MediaResource(data=(library_folder / "star.png").read_bytes()))])


def test_reader_returns_the_loaders_documents_as_nodes(library_folder: Path) -> None:
    reader = Qwen3VLReader()
    nodes = reader.load_data(library_folder)
    documents = [document for document in Loader().load(library_folder) if isinstance(document, Document)]
    assert [document_of_node(node) for node in nodes] == documents
    assert [node_of_document(document).to_dict() for document in documents] == [node.to_dict() for node in nodes]
    assert {type(node) for node in nodes} == {TextNode}
    types_by_kind = {
        node.metadata["kind"]: type(node) for node in Qwen3VLReader(image_nodes=True).load_data(library_folder)
    }
    assert types_by_kind == {"picture": ImageNode, "page": TextNode, "clip": TextNode, "text": TextNode}
    assert [Path(name).name for name in reader.skipped] == ["table.csv"]
    assert {node.metadata["by"] for node in reader.load_data(library_folder, extra_info={"by": "Ann"})} == {"Ann"}


def test_reader_reports_or_raises_failures(tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-nothing")
    reader = Qwen3VLReader()
    assert reader.load_data([tmp_path]) == []
    assert [Path(failure.source).name for failure in reader.failures] == ["broken.pdf"]
    with pytest.raises(InputError, match=r"broken\.pdf"):
        Qwen3VLReader(on_error="raise").load_data(tmp_path)
