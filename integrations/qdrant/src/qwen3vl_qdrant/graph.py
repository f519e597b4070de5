"""The HNSW graph of a collection on a server: not built while many points are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdrant_client import models

if TYPE_CHECKING:
    from qwen3vl_qdrant.core import QdrantCore

_DEFAULT_M = 16
"""Qdrant's default of `m`, the edges of a point."""


async def defer(core: QdrantCore) -> None:
    """Switch the graph of a collection off.

    Args:
        core: The collection, which exists; nothing is done if it is not on a server.
    """
    if _is_on_server(core):
        await core.request(core.client.update_collection, core.collection, hnsw_config=models.HnswConfigDiff(m=0))


async def resume(core: QdrantCore) -> None:
    """Switch the graph of a collection on, if `defer` has switched it off: the server then builds it.

    Args:
        core: The collection; nothing is done if it is not on a server, does not exist, or has graphs of its tenants.
    """
    if not _is_on_server(core) or not await core.request(core.client.collection_exists, core.collection):
        return
    config = (await core.request(core.client.get_collection, core.collection)).config.hnsw_config
    if config.m == 0 and not config.payload_m:
        graph = models.HnswConfigDiff(m=_DEFAULT_M)
        await core.request(core.client.update_collection, core.collection, hnsw_config=graph)


def _is_on_server(core: QdrantCore) -> bool:
    return not core.is_local and not hasattr(core.client, "build_index")
