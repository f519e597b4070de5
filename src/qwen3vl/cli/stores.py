"""Opening a store that has to exist already, and telling whether two locations are the same store."""

from __future__ import annotations

from pathlib import Path

from qwen3vl.errors import StoreError
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Store, open_store, parse_location


def open_existing(location: str, collection: str) -> tuple[Store, Recipe]:
    """Open a store to read it. Nothing is created.

    Args:
        location: The store, as `open_store` accepts it.
        collection: The collection in the store.

    Returns:
        The store, and the collection's recipe.

    Raises:
        StoreError: There is no store or no collection.
    """
    _, folder = parse_location(location)
    if "://" not in folder and folder != ":memory:" and not Path(folder).is_dir():
        raise StoreError(f"there is no store at {location}: make one by `qwen3vl index PATH --store {location}`")
    store = open_store(location, collection)
    try:
        recipe = store.recipe()
        if recipe is None:
            raise StoreError(f"the store {location} has no collection {collection!r} yet: index something")
    except BaseException:
        store.close()
        raise
    return store, recipe


def resolve_location(location: str) -> tuple[str, object]:
    """Return what tells a store from others, however its location is written.

    Args:
        location: The store, as `open_store` accepts it.

    Returns:
        The integration and the address; of a folder, the absolute path without links.

    Raises:
        StoreError: As `parse_location` raises it.
    """
    integration, address = parse_location(location)
    is_folder = "://" not in address and address != ":memory:"
    return integration or "qdrant", Path(address).resolve() if is_folder else address.rstrip("/")
