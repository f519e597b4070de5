"""Nodes with media, as a splitter passes them on."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode, ImageNode, MediaResource, MetadataMode, Node, NodeRelationship, TextNode
from llama_index.core.schema import Document as LlamaDocument


def media_node_of_document(document: LlamaDocument, node_id: str) -> BaseNode:
    """Return a node with the text, media and metadata of a document.

    Args:
        document: A document that holds an image or a video, or whose metadata name one.
        node_id: The id of the node.

    Returns:
        An `ImageNode` if the document holds an image and nothing else, a `Node` if it holds a video, otherwise a
        `TextNode`. Its source is the document.
    """
    fields: dict[str, Any] = {
        "id_": node_id,
        "embedding": document.embedding,
        "metadata": document.metadata,
        "excluded_embed_metadata_keys": document.excluded_embed_metadata_keys,
        "excluded_llm_metadata_keys": document.excluded_llm_metadata_keys,
        "metadata_template": document.metadata_template,
        "metadata_separator": document.metadata_separator,
        "text_template": document.text_template,
        "relationships": {NodeRelationship.SOURCE: document.as_related_node_info(), **document.relationships},
    }
    image, video = document.image_resource, document.video_resource
    if video is not None:
        return Node(**fields, text_resource=document.text_resource, image_resource=image, video_resource=video)
    text = document.get_content(metadata_mode=MetadataMode.NONE)
    if image is None:
        return TextNode(**fields, text=text)
    return ImageNode(**fields, text=text, **_image_fields(image))


def _image_fields(image: MediaResource) -> dict[str, str | None]:
    return {
        # LlamaIndex encodes the data of resources in base64.
        "image": None if image.data is None else image.data.decode("ascii"),
        "image_path": None if image.path is None else str(image.path),
        "image_url": None if image.url is None else str(image.url),
        "image_mimetype": image.mimetype,
    }
