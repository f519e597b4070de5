"""`Target`: the collection on a server that all workers read and write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qwen3vl.errors import StoreError
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Retry, Store, open_store, parse_location

RETRY = Retry(attempts=12, max_delay_s=20.0)
"""Two minutes: a server that restarts ends no run."""


@dataclass(frozen=True, slots=True)
class Target:
    """A collection on a server.

    Attributes:
        location: As for `open_store`, with the URL of a server.
        collection: Name of the collection.
        layout: As for `open_store`; fields of a layout, as pairs.
        timeout_s: As for `open_store`.
        run_id: What one run has in common on all workers. Ray uses their processes again for further runs, and what a
            process knows of a collection holds for one run: it may be deleted and created anew in between.

    Raises:
        StoreError: The location is no URL.
    """

    location: str
    collection: str = "qwen3vl"
    layout: tuple[tuple[str, Any], ...] | None = None
    timeout_s: float | None = None
    run_id: str = ""

    def __post_init__(self) -> None:
        address = parse_location(self.location)[1]
        if not address.startswith(("http://", "https://")):
            raise StoreError(
                f"the workers of a cluster write to a server, and {self.location} is none: start Qdrant or Chroma as a "
                "server and name its URL, or ingest with one process (qwen3vl.ingest)"
            )

    def open(self) -> Store:
        """Open the collection, once in a process and run.

        Returns:
            The store, which all threads of the process share.

        Raises:
            StoreError: The store cannot be opened.
        """
        return _open(self)

    def read_recipe(self) -> Recipe | None:
        """Read the recipe of the collection, without the patience of `open`: a wrong URL is an error of seconds.

        Returns:
            The recipe; None if there is no collection.

        Raises:
            StoreError: The store cannot be opened or read.
            RecipeError: The collection has another layout.
        """
        return self.connect().recipe()

    def prepare(self, recipe: Recipe) -> Store:
        """Create the collection, or check an existing one.

        Args:
            recipe: The recipe of the vectors.

        Returns:
            The store. An empty collection is indexed when the run is complete.

        Raises:
            RecipeError: The collection has another recipe or another layout.
            StoreError: It cannot be read or created.
        """
        store = self.open()
        store.create(recipe)
        store.defer_index()
        return store

    def connect(self) -> Store:
        """Open the collection once more, with the retries of `open_store`."""
        layout = dict(self.layout) if self.layout else None
        return open_store(self.location, self.collection, timeout_s=self.timeout_s, layout=layout)


@lru_cache(maxsize=16)
def _open(target: Target) -> Store:
    for failures in range(RETRY.attempts):
        try:
            store = target.connect()
        except StoreError as error:
            # Chroma's client asks the server when it is created, and does not say whether asking again would help.
            if error.__cause__ is None or failures + 1 == RETRY.attempts:
                raise
            time.sleep(RETRY.delay_s(failures))
        else:
            store.core.retry = RETRY
            return store
    raise AssertionError("Retry.attempts is at least 1")
