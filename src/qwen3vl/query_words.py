"""The texts of queries, for searches by words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from qwen3vl.errors import InputError, ItemError
from qwen3vl.inputs import Input, as_item
from qwen3vl.results import Batch
from qwen3vl.stores import Mode


class QueryWords:
    """The text of each query, and an error for each query without text if the mode of the search needs one.

    Args:
        queries: Inputs as `Embedder.embed` accepts them.
        mode: The mode of the search; None leaves it to the store.

    Attributes:
        texts: The text of each query; empty if the query has none, or is not a valid input.
    """

    def __init__(self, queries: Sequence[Input], mode: Mode | None) -> None:
        self.texts: list[str] = []
        self._errors: list[ItemError] = []
        for index, query in enumerate(queries):
            try:
                item = as_item(query)
            except Exception as error:  # objects of the caller may raise anything
                self.texts.append("")
                reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                self._errors.append(ItemError(index, "a query", reason))
                continue
            self.texts.append(" ".join(item.texts))
            if mode in ("text", "hybrid") and not self.texts[-1].strip():
                reason = f"it has no text, and mode={mode!r} searches by words: add a text, or leave the mode out"
                self._errors.append(ItemError(index, item.name, reason))

    @cached_property
    def without_vectors(self) -> Batch:
        """A batch with an empty vector for each query and the errors, for searches by words alone."""
        return Batch(np.zeros((len(self.texts), 0), dtype=np.float32), tuple(self._errors))

    def check(self, vectors: Batch) -> Batch:
        """Add the errors of queries without text to those of the embedding.

        Args:
            vectors: The vectors of all queries, with the errors of those that cannot be embedded.

        Returns:
            The same vectors with all errors, one for each query that has any.
        """
        errors = {error.index: error for error in (*self._errors, *vectors.errors)}
        return replace(vectors, errors=tuple(errors[index] for index in sorted(errors)))
