"""Vectors of inputs, with the errors of those that failed beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qwen3vl.errors import BatchError, ItemError

Embedding = list[float]


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The vectors of a call, in the order of its inputs.

    Attributes:
        vectors: One vector for each input, `dimensions` floats, or None if the input failed.
        errors: The failures, sorted by index.

    Example:
        ```python
        from llama_index.embeddings.qwen3_vl.results import EmbedResult

        result = EmbedResult.concat([EmbedResult([[1.0]], []), EmbedResult([[0.5]], [])])
        assert result.vectors_or_raise() == [[1.0], [0.5]]
        ```
    """

    vectors: list[Embedding | None]
    errors: list[ItemError]

    @classmethod
    def concat(cls, results: Iterable[EmbedResult]) -> EmbedResult:
        """Join the results of consecutive parts of a call.

        Args:
            results: The parts, in the order of their inputs.

        Returns:
            One result; the indices of its errors count from the first part's first input.
        """
        vectors: list[Embedding | None] = []
        errors: list[ItemError] = []
        for result in results:
            errors += [error.at(len(vectors) + error.index) for error in result.errors]
            vectors += result.vectors
        return cls(vectors, errors)

    def vectors_or_raise(self) -> list[Embedding]:
        """Return the vectors if no input failed.

        Returns:
            One vector for each input.

        Raises:
            BatchError: Inputs failed. It has the vectors of the others.
        """
        if self.errors:
            raise BatchError(self.errors, self.vectors)
        return [vector for vector in self.vectors if vector is not None]
