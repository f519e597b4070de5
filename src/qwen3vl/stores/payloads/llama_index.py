"""Documents in the form in which LlamaIndex keeps nodes in a vector store; nothing of it is imported here."""

from __future__ import annotations

import json
from typing import Any

from qwen3vl.documents import Document

SILENT = ("content_hash", "fused", "image", "kind", "thumbnail", "video")
"""Metadata that tell a language model nothing."""


def llama_index_payload(document: Document, point_id: str, source_key: str) -> dict[str, str]:
    """The keys `_node_content` and `_node_type`, from which LlamaIndex's stores rebuild a node.

    Under `source_key` stands the source: by it those stores delete a document's nodes.

    A picture in a file or behind a URL becomes an `ImageNode`, all else a `TextNode`; every node has the
    document's metadata, media references among them.  All metadata are excluded from embedding, so that a text is
    embedded as it stands; but for the source of a node with media: LlamaIndex's indexes drop nodes that have no words.
    """
    image = document.image or ""
    # A page of a PDF is no picture that others could open, and a data URI would be stored twice.
    picture = bool(image) and document.kind == "picture" and not image.startswith("data:")
    metadata = document.to_payload()["metadata"]
    media = document.image is not None or document.video is not None
    node: dict[str, Any] = {
        "id_": point_id,
        "metadata": metadata,
        "text": document.text,
        "excluded_embed_metadata_keys": sorted(metadata.keys() - {"source"} if media else metadata.keys()),
        "excluded_llm_metadata_keys": [*SILENT],
        "class_name": "ImageNode" if picture else "TextNode",
    }
    if picture:
        node["image_url" if image.startswith(("http://", "https://")) else "image_path"] = image
    return {"_node_content": json.dumps(node), "_node_type": node["class_name"], source_key: document.source}
