"""The nodes that LlamaIndex is at work on while it asks for no more than their texts.

Indexes hand the texts of nodes to an embedding model, and ingestion caches hash those texts: a picture without a
caption is an empty string to both, and the second picture of a pipeline gets the vector of the first.  Neither hands
the nodes on, but both have them in a variable, and that is looked up here: by the very functions, and only to read.
Where LlamaIndex calls from elsewhere there is nothing to be found, and texts are texts.
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
_EMBEDDING = {embed_nodes.__code__, async_embed_nodes.__code__}
_HASHING = {get_transformation_hash.__code__}
_DEPTH = 24
"""Calls between those functions and this one, at most: decorators for events and spans stand between."""


def nodes_being_embedded(texts: Sequence[str]) -> list[BaseNode] | None:
    """The nodes whose texts an index wants to have embedded, one for each text; None where it is something else."""
    found = _nodes(_EMBEDDING)
    if found is None:
        return None
    nodes = [node for node in found if node.embedding is None]
    if [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes] == list(texts):
        return nodes
    log.warning(
        "an index asks for the texts of nodes in parts that cannot be told apart: nodes with media are embedded by "
        "their words here. Embed them first: nodes = embed_model(nodes)"
    )
    return None


def nodes_being_hashed() -> list[BaseNode]:
    """The nodes for which an ingestion pipeline wants a key."""
    return _nodes(_HASHING) or []


def _nodes(functions: set[CodeType]) -> list[BaseNode] | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (as `inspect` does)
    for _ in range(_DEPTH):
        if frame is None:
            return None
        if frame.f_code in functions:
            return list(frame.f_locals["nodes"])
        frame = frame.f_back
    return None
