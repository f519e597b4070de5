"""Vector stores: `Store` and `AsyncStore` over one core per database, and the registry of integrations."""

from qwen3vl.stores.base import AsyncStore
from qwen3vl.stores.blocking import Store
from qwen3vl.stores.copying import CopyReport, copy_store
from qwen3vl.stores.core import StoreCore
from qwen3vl.stores.failures import ClientFailure
from qwen3vl.stores.indexing import StopIndexing, indexing_progress, on_indexing
from qwen3vl.stores.registry import open_client, open_store, parse_location
from qwen3vl.stores.retry import Retry
from qwen3vl.stores.types import (
    CollectionInfo,
    Hit,
    Mode,
    Point,
    PointRef,
    Search,
    SearchOptions,
    StoredPoint,
    Vector,
    Where,
    is_value_list,
    matches_nothing,
)

__all__ = [
    "AsyncStore",
    "ClientFailure",
    "CollectionInfo",
    "CopyReport",
    "Hit",
    "Mode",
    "Point",
    "PointRef",
    "Retry",
    "Search",
    "SearchOptions",
    "StopIndexing",
    "Store",
    "StoreCore",
    "StoredPoint",
    "Vector",
    "Where",
    "copy_store",
    "indexing_progress",
    "is_value_list",
    "matches_nothing",
    "on_indexing",
    "open_client",
    "open_store",
    "parse_location",
]
