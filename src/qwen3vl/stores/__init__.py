"""Vector stores: one contract for blocking and async clients, its types, and the registry of integrations."""

from qwen3vl.stores.base import (
    KINDS,
    RANGE,
    Hit,
    Point,
    PointRef,
    Search,
    Store,
    Vector,
    Where,
    matches_nothing,
    open_store,
    parse_location,
    run_sync,
)

__all__ = [
    "KINDS",
    "RANGE",
    "Hit",
    "Point",
    "PointRef",
    "Search",
    "Store",
    "Vector",
    "Where",
    "matches_nothing",
    "open_store",
    "parse_location",
    "run_sync",
]
