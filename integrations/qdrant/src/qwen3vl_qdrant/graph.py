"""The HNSW graph of a collection on a server: not built while many points are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdrant_client import models

if TYPE_CHECKING:
    from qwen3vl_qdrant.core import QdrantCore

DEFERRED_KEY = "qwen3vl_deferred_m"
"""Key of the collection's metadata that has the former `m`, the edges of a point, while the graph is switched off.

It is in the collection, because another process may switch the graph on again: the next run, if one is killed.
"""


async def defer(core: QdrantCore) -> None:
    """Switch the graph of a collection off, and store its `m` in the collection's metadata.

    Args:
        core: The collection, which exists; nothing is done if it is not on a server, or has no graph.
    """
    if not _is_on_server(core):
        return
    m = (await core.request(core.client.get_collection, core.collection)).config.hnsw_config.m
    if m:
        await _update(core, m=0, deferred_m=m)


async def resume(core: QdrantCore) -> None:
    """Switch the graph of a collection on, if `defer` has switched it off: the server then builds it.

    Args:
        core: The collection; nothing is done if it is not on a server, does not exist, or was not changed by `defer`.
    """
    if not _is_on_server(core) or not await core.request(core.client.collection_exists, core.collection):
        return
    config = (await core.request(core.client.get_collection, core.collection)).config
    deferred_m = (config.metadata or {}).get(DEFERRED_KEY)
    if isinstance(deferred_m, int):
        # An `m` that somebody has set meanwhile stays.
        await _update(core, m=config.hnsw_config.m or deferred_m, deferred_m=None)


async def _update(core: QdrantCore, *, m: int, deferred_m: int | None) -> None:
    """Change `m` and the metadata in one request; None removes the key."""
    await core.request(
        core.client.update_collection,
        core.collection,
        hnsw_config=models.HnswConfigDiff(m=m),
        metadata={DEFERRED_KEY: deferred_m},
    )


def _is_on_server(core: QdrantCore) -> bool:
    return not core.is_local and not hasattr(core.client, "build_index")
