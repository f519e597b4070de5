"""`open_store`: the store at a location."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.stores import open_client
from qwen3vl.stores.failures import DEFAULT_TIMEOUT_S
from qwen3vl_qdrant.edge.folder import COLLECTIONS
from qwen3vl_qdrant.edge_store import QdrantEdgeStore
from qwen3vl_qdrant.embedded import is_local_mode, open_folder
from qwen3vl_qdrant.layout import Layout
from qwen3vl_qdrant.store import QdrantStore

logger = logging.getLogger(__name__)
API_KEY_VARIABLE = "QDRANT_API_KEY"
"""Environment variable with the key of servers."""


@renamed_arguments(place="location")
def open_store(
    location: str,
    collection: str = "qwen3vl",
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    layout: Layout | Mapping[str, Any] | None = None,
) -> QdrantStore:
    """Open a store. A server that cannot be reached is an error of the first request, not of this call.

    A folder that cannot be written can be searched. A server gets the key in the environment variable QDRANT_API_KEY,
    if there is one.

    Args:
        location: A folder (created if it does not exist), a server's http(s) URL, or `":memory:"`.
        collection: Name of the collection.
        timeout_s: Seconds after which a request to a server fails, rounded up: limits connecting, and each read and
            write.
        layout: As for `QdrantStore`, or the fields of a `Layout`.

    Returns:
        The store: a `QdrantEdgeStore` for a folder, unless qdrant-client's local mode has made it.

    Raises:
        StoreError: The store cannot be opened, for example because another process has the folder open.
    """
    checked = Layout(**layout) if isinstance(layout, Mapping) else layout
    return open_client(
        location,
        memory=lambda: QdrantStore(QdrantClient(":memory:"), collection, layout=checked),
        server=lambda url: QdrantStore(_open_server(url, timeout_s), collection, layout=checked),
        folder=lambda folder: _open_folder(folder, collection, checked),
    )


def _open_server(url: str, timeout_s: float) -> QdrantClient:
    return QdrantClient(url=url, timeout=ceil(timeout_s), api_key=os.environ.get(API_KEY_VARIABLE) or None)


def _open_folder(folder: str, collection: str, layout: Layout | None) -> QdrantStore:
    if (Path(folder) / COLLECTIONS).is_dir() or not is_local_mode(Path(folder)):
        return QdrantEdgeStore(folder, collection, layout=layout)
    client, read_only = open_folder(folder)
    logger.info(
        "%s was made by an earlier version, in qdrant-client's local mode, which compares all points in each search: "
        "copy it into a new folder with `qwen3vl copy %s NEW`",
        folder,
        folder,
    )
    store = QdrantStore(client, collection, layout=layout)
    store.core.read_only_folder = folder if read_only else ""
    return store
