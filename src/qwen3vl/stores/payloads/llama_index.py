"""Documents in the form in which LlamaIndex's vector stores keep nodes. LlamaIndex is not imported here."""

from __future__ import annotations

import json
from typing import Any

from qwen3vl.documents import Document

METADATA_KEYS_HIDDEN_FROM_LLM = ("content_hash", "fused", "image", "kind", "thumbnail", "video")
"""Metadata that LlamaIndex does not show to a language model: digests, references and flags."""


def llama_index_payload(document: Document, point_id: str, source_key: str) -> dict[str, str]:
    """Return the payload keys from which LlamaIndex's vector stores rebuild a node.

    An image in a file or behind a URL becomes an `ImageNode`; everything else, pages and data URIs included, becomes a
    `TextNode`. All nodes have the document's metadata, media references included. All metadata are excluded from
    embedding, so that LlamaIndex embeds the text alone; only nodes with media keep their source, because LlamaIndex's
    indexes drop nodes without any text.

    Args:
        document: The document.
        point_id: UUID of its point.
        source_key: The key by which the vector store deletes the nodes of a source: `"doc_id"` or `"document_id"`.

    Returns:
        `_node_content` (JSON), `_node_type`, and the source under `source_key`.
    """
    image = document.image or ""
    # LlamaIndex cannot open a page of a PDF as an image, and a data URI would be stored twice.
    is_image_node = bool(image) and document.kind == "picture" and not image.startswith("data:")
    has_media = document.image is not None or document.video is not None
    metadata = document.to_payload()["metadata"]
    node: dict[str, Any] = {
        "id_": point_id,
        "metadata": metadata,
        "text": document.text,
        "excluded_embed_metadata_keys": sorted(metadata.keys() - {"source"} if has_media else metadata.keys()),
        "excluded_llm_metadata_keys": list(METADATA_KEYS_HIDDEN_FROM_LLM),
        "class_name": "ImageNode" if is_image_node else "TextNode",
    }
    if is_image_node:
        node["image_url" if image.startswith(("http://", "https://")) else "image_path"] = image
    return {"_node_content": json.dumps(node), "_node_type": node["class_name"], source_key: document.source}
