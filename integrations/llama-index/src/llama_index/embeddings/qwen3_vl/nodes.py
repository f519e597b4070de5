"""Conversions between LlamaIndex's nodes and this package's documents and inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from llama_index.core.schema import BaseNode, ImageNode, MediaResource, MetadataMode, Node, NodeRelationship, TextNode
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from qwen3vl.adapters.inputs import input_or_error
from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys, document_from_metadata
from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.inputs import as_item
from qwen3vl.stores.payloads.llama_index import llama_index_payload

MEDIA_KIND_KEY = "media_kind"
"""Metadata key that `as_storable` writes to nodes that have media and no text."""
RERANK_ERROR_KEY = "rerank_error"
"""Metadata key under which the reranker writes why a node has no score."""


def node_of_document(document: Document, *, image_nodes: bool = False) -> TextNode:
    """Return a document as a node whose metadata hold its media references, so that splitters and stores keep them.

    Args:
        document: The document.
        image_nodes: Whether images become `ImageNode`s, as `MultiModalVectorStoreIndex` needs them and as
            LlamaIndex's stores read them from a collection that `qwen3vl.ingest` wrote. A `VectorStoreIndex` over
            Qdrant that was built from `ImageNode`s and others finds only the `ImageNode`s, until it is opened again
            with `from_vector_store`.

    Returns:
        The node; its id is the document's.

    Example:
        ```python
        from llama_index.embeddings.qwen3_vl import document_of_node, node_of_document
        from qwen3vl import Document

        page = Document("report.pdf", "page", locator="page=3", image="report.pdf#page=3")
        assert document_of_node(node_of_document(page)) == page
        ```
    """
    payload: dict[str, Any] = dict(llama_index_payload(document, document.id, "ref_doc_id"))
    node = cast("TextNode", metadata_dict_to_node(payload))
    if image_nodes or not isinstance(node, ImageNode):
        return node
    return TextNode(**node.model_dump(include=set(TextNode.model_fields)))


def document_of_node(node: BaseNode, keys: MediaKeys = DEFAULT_KEYS) -> Document:
    """Return a node as a document for `qwen3vl.ingest`.

    Args:
        node: A node that holds media itself, or references to media in its metadata, or only text.
        keys: The metadata keys of media references.

    Returns:
        The document, with the node's text, media and metadata.

    Raises:
        InputError: A media reference in the metadata is not a str.
    """
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    # `as_storable` writes the same value as text and as metadata; it is not the node's own text.
    own_text = "" if text == node.metadata.get(MEDIA_KIND_KEY) else text
    document = document_from_metadata(own_text, node.metadata, keys)
    image, video = _image_reference(node) or document.image, _video_reference(node) or document.video
    if (image, video) == (document.image, document.video):
        return document
    return replace(document, image=image, video=video, kind="clip" if video else "picture")


def node_input(node: BaseNode, keys: MediaKeys = DEFAULT_KEYS) -> dict[str, Any]:
    """Return what is embedded for a node.

    Args:
        node: The node.
        keys: The metadata keys of media references.

    Returns:
        An input of `Embedder.embed`. Media are embedded with the node's own text. A node without media is embedded
        as everywhere in LlamaIndex: by the metadata that are not excluded, followed by its text.

    Raises:
        InputError: A media reference in the metadata is not a str, the node is empty, or its text is that of a binary
            file.
    """
    document = document_of_node(node, keys)
    if document.image is not None or document.video is not None:
        return document.input
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    if not text.strip():
        raise InputError(
            "it is empty: it has no text, image or video. LlamaIndex's splitters make such nodes of images and videos; "
            "Qwen3VLSplitter(parser=…) of llama_index.node_parser.qwen3_vl passes images and videos on"
        )
    if "\0" in text and "file_type" in node.metadata:
        raise InputError(
            f"its text is the content of a binary file ({node.metadata['file_type']}), as SimpleDirectoryReader reads "
            "files for which it has no reader: use Qwen3VLReader().load_data(folder) instead, or pass "
            "file_extractor={'.png': Qwen3VLReader()} to it, or install llama-index-readers-file"
        )
    return {"text": text}


def has_media(node: BaseNode, keys: MediaKeys) -> bool:
    """Return whether a node has an image or video, or names one in its metadata.

    Args:
        node: The node.
        keys: The metadata keys of media references.

    Returns:
        Whether it has; also for a reference that is not a str, which is an error when the node is embedded.
    """
    try:
        document = document_of_node(node, keys)
    except InputError:
        return True
    return document.image is not None or document.video is not None


def node_input_or_error(node: BaseNode, keys: MediaKeys) -> Any:
    """Return a node's input, or the error that the engine reports for this node.

    Args:
        node: The node.
        keys: The metadata keys of media references.

    Returns:
        An input of `Embedder.embed` and `Reranker.rank`, which accept an `InputError` in its place.
    """
    return input_or_error(node, lambda node: node_input(node, keys), f"node {node.node_id}")


def names_file(value: Any) -> bool:
    """Return whether an input names a file of this machine.

    Args:
        value: An input of `Embedder.embed`, or an `InputError` in its place.

    Returns:
        Whether one of its images and videos is a path.
    """
    try:
        item = as_item(value)
    except InputError:
        return False
    origins = [*(image.origin for image in item.images), *(video.origin for video in item.videos)]
    return "path" in origins


def as_storable(node: BaseNode, value: dict[str, Any], keys: MediaKeys) -> BaseNode:
    """Return a node that keeps its media and its place in an index when LlamaIndex stores it.

    Stores turn documents into text nodes, so the media of documents are written to their metadata. Indexes drop
    nodes without text, so those get their kind ("picture" or "clip") as text, which is not embedded.

    Args:
        node: A node that was embedded.
        value: Its input, as `node_input` returns it.
        keys: The metadata keys of media references; the first ones are written.

    Returns:
        The node itself if there is nothing to add, otherwise a copy.
    """
    if isinstance(node, LlamaDocument):
        first_keys = {"image": keys.image[:1], "video": keys.video[:1]}
        references = {key: value[kind] for kind, names in first_keys.items() if kind in value for key in names}
        # A data URI would be stored twice.
        references = {key: reference for key, reference in references.items() if not reference.startswith("data:")}
        if not references.items() <= node.metadata.items():
            node = _with_metadata(node, references)
    if node.get_content(metadata_mode=MetadataMode.EMBED):
        return node
    kind = "clip" if "video" in value else "picture"
    update: dict[str, Any] = {"metadata": {**node.metadata, MEDIA_KIND_KEY: kind}}
    if isinstance(node, Node):  # without text, the metadata of a `Node` do not count as content
        update["text_resource"] = MediaResource(text=kind)
    return node.model_copy(update=update)


def with_source(node: BaseNode) -> BaseNode:
    """Return a node that has a source: itself if it has none, as LlamaIndex's splitters set it.

    Vector stores delete nodes by the id of their source, and an ingestion pipeline asks for that of the nodes that it
    was given. What it was given itself must have no source: LlamaIndex's docstore cannot delete a node that is its own.

    Args:
        node: The node.

    Returns:
        The node, or a copy with the same id.
    """
    if node.source_node is not None:
        return node
    # The metadata are those of the node: an image in them as a data URI would be stored twice.
    source = node.as_related_node_info().model_copy(update={"metadata": {}})
    return node.model_copy(update={"relationships": {**node.relationships, NodeRelationship.SOURCE: source}})


def with_rerank_metadata(node: BaseNode, metadata: dict[str, Any]) -> BaseNode:
    """Return a node with a reranker's metadata, excluded from prompts and embeddings, and without an earlier error.

    Args:
        node: The node.
        metadata: The metadata to add.

    Returns:
        The node itself if nothing changes, otherwise a copy.
    """
    if not metadata and RERANK_ERROR_KEY not in node.metadata:
        return node
    remaining = {key: value for key, value in node.metadata.items() if key != RERANK_ERROR_KEY}
    return _with_metadata(node.model_copy(update={"metadata": remaining}), metadata)


def has_inline_media(node: BaseNode) -> bool:
    """Return whether a node has media as bytes in a `MediaResource`, which most stores do not keep.

    Args:
        node: The node.

    Returns:
        Whether its image or video resource has data.
    """
    resources = (node.image_resource, node.video_resource) if isinstance(node, Node) else ()
    return any(resource is not None and resource.data is not None for resource in resources)


def _with_metadata(node: BaseNode, metadata: dict[str, Any]) -> BaseNode:
    """Return a copy with further metadata, which neither prompts nor embeddings contain."""
    return node.model_copy(
        update={
            "metadata": {**node.metadata, **metadata},
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, *metadata],
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, *metadata],
        }
    )


def _image_reference(node: BaseNode) -> str | None:
    if isinstance(node, ImageNode):
        if node.image:
            return _data_uri(node.image, node.image_mimetype or "image")
        return node.image_path or node.image_url
    return _resource_reference(node.image_resource, "image") if isinstance(node, Node) else None


def _video_reference(node: BaseNode) -> str | None:
    return _resource_reference(node.video_resource, "video") if isinstance(node, Node) else None


def _resource_reference(resource: MediaResource | None, kind: str) -> str | None:
    if resource is None:
        return None
    if resource.path is not None:
        return str(resource.path)
    if resource.url is not None:
        return str(resource.url)
    # LlamaIndex encodes the data of resources in base64.
    return None if resource.data is None else _data_uri(resource.data.decode("ascii"), resource.mimetype or kind)


def _data_uri(base64_data: str, mimetype: str) -> str:
    return f"data:{mimetype};base64,{base64_data}"
