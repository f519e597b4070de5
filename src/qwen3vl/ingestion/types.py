"""What an ingestion takes: items of a loader, and an embedder of streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import ItemError
from qwen3vl.inputs import Input
from qwen3vl.loaders import Skipped
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Vector

LoaderItem = Document | LoadFailure | Skipped
"""A document, a source that could not be loaded, or a file of a type that is not loaded."""


class StreamingEmbedder(Protocol):
    """The part of `Embedder` that `ingest` uses; any object with these members will do."""

    @property
    def recipe(self) -> Recipe:
        """Everything that decides the vectors."""
        ...

    def stream(self, inputs: Iterable[Input]) -> Iterator[tuple[int, Vector | ItemError]]:
        """Embed a stream of inputs in bounded memory. `ingest` calls it again after each pause of its documents.

        Args:
            inputs: The inputs, taken as they are needed.

        Returns:
            Pairs of the input's index, and its vector, (dimensions,) float32, or its error, in any order.
        """
        ...
