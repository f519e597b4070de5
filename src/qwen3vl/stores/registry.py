"""Opening stores by location: folders, server URLs and memory, of any integration that is installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.errors import StoreError
from qwen3vl.stores.blocking import Store

INTEGRATIONS = ("qdrant", "chroma")
"""The integrations of this project, which a location may name before a colon."""
ENTRY_POINT_GROUP = "qwen3vl.stores"
"""Group under which integrations register a function `(location, collection, *, timeout_s, layout) -> Store`."""
Client = TypeVar("Client")
_PREFIX = re.compile(r"(?P<name>\w[\w.-]+):")
"""What a location may have in front: two characters at least, because one is a drive of Windows."""
_SERVER_PREFIXES = ("http://", "https://")


def parse_location(location: str) -> tuple[str, str]:
    """Split a location into integration and address.

    Args:
        location: Such as `"library"`, `"chroma:library"`, `"http://localhost:6333"` or `":memory:"`.

    Returns:
        `("chroma", "library")` for `"chroma:library"`; the integration is empty if the location names none.

    Raises:
        StoreError: It begins with the name of an unknown integration and a colon, or it has no address.
    """
    integration, address = "", location
    prefix = _PREFIX.match(location)
    if prefix is not None and not location.startswith(_SERVER_PREFIXES):
        known = sorted({*INTEGRATIONS, *_integrations()})
        if prefix["name"] in known:
            integration, address = prefix["name"], location[prefix.end() :]
        elif not Path(location).is_dir():
            raise StoreError(
                f"the store {location} begins with {prefix[0]!r}, and no integration has that name: there are "
                f"{', '.join(known)}. The URL of a server begins with http:// or https://, and a folder of this name "
                f"is ./{location}"
            )
    if not address:
        raise StoreError(f"the store {location!r} has no address: add a folder, the URL of a server, or :memory:")
    return integration, address


def _integrations() -> dict[str, EntryPoint]:
    """Return the installed integrations by name."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


@renamed_arguments(place="location")
def open_store(
    location: str, collection: str = "qwen3vl", *, timeout_s: float | None = None, layout: Any = None
) -> Store:
    """Open a store.

    Args:
        location: A folder (created if it does not exist), `":memory:"`, or a server's http(s) URL. A prefix names the
            integration, one of `INTEGRATIONS` or another that is installed: `"chroma:library"`. Without one it is
            Qdrant, or, where that is not installed, the first installed integration by name.
        collection: Name of the collection.
        timeout_s: Seconds after which a request to a server fails: limits connecting, and each read and write. None is
            the default of 30 seconds. Opening is limited too. Transient failures are retried as `Retry` says.
        layout: What a Qdrant collection stores beside full vectors: a `Layout`, or its fields as a mapping such as
            `{"short": 512}`. None is that of an existing collection, or nothing.

    Returns:
        The store.

    Raises:
        ValueError: `timeout_s` is not positive.
        StoreError: There is no such integration, it is not installed, or the store cannot be opened.

    Example:
        ```python
        store = open_store("library.qdrant")
        ```
    """
    if timeout_s is not None and not timeout_s > 0:
        raise ValueError(f"timeout_s is {timeout_s}; it must be more than 0")
    openers = _integrations()
    integration, address = parse_location(location)
    if not integration:
        integration = "qdrant" if "qdrant" in openers or not openers else min(openers)
    if integration not in openers:
        raise StoreError(
            f"the store {location} needs the integration {integration!r}, which is not installed; at the root of a "
            f"clone of the repository run: pip install . ./integrations/{integration}"
        )
    # Integrations of others may lack these arguments.
    options = {"timeout_s": timeout_s, "layout": layout}
    options = {name: value for name, value in options.items() if value is not None}
    store = openers[integration].load()(address, collection, **options)
    if not isinstance(store, Store):
        raise StoreError(f"the integration {openers[integration].value} opens something that is not a Store")
    return store


def open_client(
    address: str, *, memory: Callable[[], Client], server: Callable[[str], Client], folder: Callable[[str], Client]
) -> Client:
    """Open an integration's client by its address.

    Args:
        address: A folder, `":memory:"`, or an http(s) URL, as `parse_location` returns it.
        memory: Opens a client in memory.
        server: Opens a client of the server at a URL.
        folder: Opens a client in a folder.

    Returns:
        The client.

    Raises:
        StoreError: The client cannot be opened.
    """
    try:
        if address.startswith(_SERVER_PREFIXES):
            return server(address)
        if "://" in address:
            raise StoreError(
                f"the store {address} is no http(s) URL: the URL of a server begins with http:// or https://"
            )
        return memory() if address == ":memory:" else folder(address)
    except StoreError:
        raise
    except Exception as error:  # locks, permissions, connections, versions: clients raise many types
        raise StoreError(f"the store {address} cannot be opened: {error}") from error
