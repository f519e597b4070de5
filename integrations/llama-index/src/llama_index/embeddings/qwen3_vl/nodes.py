"""LlamaIndex's nodes, and this package's documents and inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from llama_index.core.schema import BaseNode, ImageNode, MediaResource, MetadataMode, Node, TextNode
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys, document_from_metadata
from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.stores.payloads.llama_index import llama_index_payload

NAMED = "media_kind"
"""Metadata that say what a node is that has no words."""


def node_of_document(document: Document, *, image_nodes: bool = False) -> TextNode:
    """The node of a document: its media are references in the metadata, where splitters and stores keep them.

    image_nodes: an `ImageNode` for a picture, as `MultiModalVectorStoreIndex` wants it and as LlamaIndex's stores give
    it back of a collection that `qwen3vl.ingest` wrote.  A `VectorStoreIndex` over Qdrant that was made of `ImageNode`s
    and others finds the `ImageNode`s only, until it is opened anew with `from_vector_store`.
    """
    payload: dict[str, Any] = dict(llama_index_payload(document, document.id, "ref_doc_id"))
    node = cast("TextNode", metadata_dict_to_node(payload))
    if image_nodes or not isinstance(node, ImageNode):
        return node
    return TextNode(**node.model_dump(include=set(TextNode.model_fields)))


def document_of_node(node: BaseNode, keys: MediaKeys = DEFAULT_KEYS) -> Document:
    """The document of a node, for `qwen3vl.ingest`: media that it holds itself, or names in its metadata.

    Raises `qwen3vl.InputError` where a reference is not a str.
    """
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    # What `storable` wrote is no text of the node's own.
    document = document_from_metadata("" if text == node.metadata.get(NAMED) else text, node.metadata, keys)
    image, video = _image(node) or document.image, _video(node) or document.video
    if (image, video) == (document.image, document.video):
        return document
    return replace(document, image=image, video=video, kind="clip" if video else "picture")


def node_input(node: BaseNode, keys: MediaKeys = DEFAULT_KEYS) -> dict[str, Any]:
    """A node as the core embeds it.

    Media go with the node's own text; a text alone is embedded as LlamaIndex does, after those of its metadata that are
    not excluded.  Raises `qwen3vl.InputError` where a reference is not a str.
    """
    document = document_of_node(node, keys)
    if document.image is None and document.video is None:
        return {"text": node.get_content(metadata_mode=MetadataMode.EMBED)}
    return document.input


def input_or_error(node: BaseNode, keys: MediaKeys) -> dict[str, Any] | InputError:
    """A node's input, or the error that it is, which the core reports in its place."""
    try:
        return node_input(node, keys)
    except InputError as error:
        error.source = f"node {node.node_id}"
        return error


def storable(node: BaseNode, given: dict[str, Any], keys: MediaKeys) -> BaseNode:
    """The node; or a copy that says what LlamaIndex would lose.

    Stores make texts of documents: their media are named in the metadata.  Indexes drop nodes that have no words: those
    say what they are, a word that is not embedded.
    """
    if isinstance(node, LlamaDocument):
        media = {"image": keys.image[:1], "video": keys.video[:1]}
        told = {name: given[kind] for kind, names in media.items() if kind in given for name in names}
        told = {name: value for name, value in told.items() if not value.startswith("data:")}
        if not told.items() <= node.metadata.items():
            silent = {"excluded_embed_metadata_keys", "excluded_llm_metadata_keys"}
            lists = {name: [*getattr(node, name), *told] for name in silent}
            node = node.model_copy(update={"metadata": {**node.metadata, **told}, **lists})
    if node.get_content(metadata_mode=MetadataMode.EMBED):
        return node
    kind = "clip" if "video" in given else "picture"
    changed: dict[str, Any] = {"metadata": {**node.metadata, NAMED: kind}}
    if isinstance(node, Node):  # whose metadata do not count without a text
        changed["text_resource"] = MediaResource(text=kind)
    return node.model_copy(update=changed)


def noted(node: BaseNode, told: dict[str, Any]) -> BaseNode:
    """A copy with what a reranker says of the node in its metadata, where neither prompts nor embeddings show it.

    What an earlier one said of a failure goes.  The node itself, where there is nothing to say.
    """
    if not told and "rerank_error" not in node.metadata:
        return node
    before = {key: value for key, value in node.metadata.items() if key != "rerank_error"}
    silent = list(told)
    return node.model_copy(
        update={
            "metadata": {**before, **told},
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, *silent],
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, *silent],
        }
    )


def holds_data(node: BaseNode) -> bool:
    """Whether media lie in a resource of the node itself, as bytes."""
    resources = (node.image_resource, node.video_resource) if isinstance(node, Node) else ()
    return any(each is not None and each.data is not None for each in resources)


def _image(node: BaseNode) -> str | None:
    if isinstance(node, ImageNode):
        if node.image:
            return _data_uri(node.image, node.image_mimetype or "image")
        return node.image_path or node.image_url
    return _reference(node.image_resource, "image") if isinstance(node, Node) else None


def _video(node: BaseNode) -> str | None:
    return _reference(node.video_resource, "video") if isinstance(node, Node) else None


def _reference(resource: MediaResource | None, kind: str) -> str | None:
    if resource is None:
        return None
    if resource.path is not None:
        return str(resource.path)
    if resource.url is not None:
        return str(resource.url)
    # LlamaIndex keeps data in base64.
    return None if resource.data is None else _data_uri(resource.data.decode("ascii"), resource.mimetype or kind)


def _data_uri(encoded: str, mimetype: str) -> str:
    return f"data:{mimetype};base64,{encoded}"
