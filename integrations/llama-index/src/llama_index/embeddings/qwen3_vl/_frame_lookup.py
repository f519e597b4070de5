"""The nodes that LlamaIndex is processing while it passes on only their texts.

A `VectorStoreIndex` passes the texts of nodes to the embedding model, and an ingestion cache hashes those texts. An
image without a caption is an empty text to both, so an index would embed nothing of it, and a pipeline would take the
vector of one image for the next. Neither passes on the nodes, but both have them in a local variable named `nodes`.
This module reads that variable from the frames of exactly those functions, and changes nothing.

`Qwen3VLEmbedding.lookup_nodes` switches it off. Code that passes nodes to the model (`embed_model(nodes)`, an
`IngestionPipeline`) embeds their media without it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from types import CodeType, FrameType

from llama_index.core.indices.utils import async_embed_nodes, embed_nodes
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.schema import BaseNode, MetadataMode

log = logging.getLogger(__name__)
_EMBED_FUNCTIONS = {embed_nodes.__code__, async_embed_nodes.__code__}
_HASH_FUNCTIONS = {get_transformation_hash.__code__}
_MAX_FRAMES = 24
"""How many frames are searched, from this module upwards, including those of LlamaIndex's decorators."""


def nodes_being_embedded(texts: Sequence[str]) -> list[BaseNode] | None:
    """Return the nodes whose texts an index is embedding.

    Args:
        texts: The texts that the embedding model was called with.

    Returns:
        One node for each text; None if no index is the caller, or if it passes only a part of its nodes' texts.
    """
    index_nodes = _find_nodes(_EMBED_FUNCTIONS)
    if index_nodes is None:
        return None
    nodes = [node for node in index_nodes if node.embedding is None]
    if [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes] == list(texts):
        return nodes
    log.warning(
        "an index passes the texts of its nodes in parts that cannot be assigned to nodes: nodes with media are "
        "embedded by their text only. Embed them first: nodes = embed_model(nodes)"
    )
    return None


def nodes_being_hashed() -> list[BaseNode]:
    """Return the nodes for which an ingestion pipeline computes a cache key.

    Returns:
        The nodes; empty if no pipeline is the caller.
    """
    return _find_nodes(_HASH_FUNCTIONS) or []


def _find_nodes(functions: set[CodeType]) -> list[BaseNode] | None:
    """Return the variable `nodes` of the nearest calling frame that runs one of these functions."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (as `inspect` does)
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return None
        if frame.f_code in functions:
            return list(frame.f_locals["nodes"])
        frame = frame.f_back
    return None
