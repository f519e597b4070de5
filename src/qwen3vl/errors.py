"""All exceptions of the package. Each message names the input, the reason and the fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from qwen3vl._deprecation import deprecated_alias, renamed_arguments

CLOSED = "this model was closed and cannot be used any more; create a new Embedder or Reranker"
"""Message of the `RuntimeError` of a model that is used after `close`."""
_ERRORS_IN_MESSAGE = 5


class Qwen3VLError(Exception):
    """Base class of all exceptions of this package."""


class ModelError(Qwen3VLError):
    """A checkpoint is missing, incomplete, or of another architecture."""


class RecipeError(Qwen3VLError):
    """A collection was written with another recipe than the one it is opened with."""


class StoreError(Qwen3VLError):
    """A vector store cannot be opened, read or written.

    Args:
        message: The collection, the reason and the fix.
        transient: Whether the same request may succeed later.
        invalid_request: Whether the store rejects the content of the request, so that it never succeeds.
    """

    @renamed_arguments(passing="transient", refused="invalid_request")
    def __init__(self, message: str, *, transient: bool = False, invalid_request: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        self.invalid_request = invalid_request

    passing = deprecated_alias("StoreError", "passing", "transient")
    refused = deprecated_alias("StoreError", "refused", "invalid_request")


class ServerError(Qwen3VLError):
    """A server of models cannot be reached, refuses a request, or fails.

    Args:
        message: The server, the reason and the fix.
        status: HTTP status of its answer; None if there was none.
        details: The `error` in its answer.
    """

    def __init__(self, message: str, *, status: int | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = details or {}


class InputError(Qwen3VLError):
    """An input is empty, has a wrong type, or has media that cannot be used.

    Attributes:
        source: Name of the image or video that caused the error; None if it is not about one.
    """

    source: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, **_cause_of(self)}


@contextmanager
def error_source(name: str) -> Iterator[None]:
    """Return a context that notes in an `InputError` which image or video it is about.

    Args:
        name: Name of the image or video.

    Yields:
        Nothing.
    """
    try:
        yield
    except InputError as error:
        error.source = name
        raise


class MediaError(InputError):
    """An image or video cannot be read: it is missing, broken, too large, or of an unsupported shape."""


class PolicyError(MediaError):
    """The `MediaPolicy` does not allow a media reference."""


class QueryError(InputError):
    """A query cannot be used. Its `__cause__` says why; `system_failure` tells whether the query is at fault."""


class ItemError(Qwen3VLError):
    """The failure of one item of a call. The exception that caused it is `__cause__`.

    Args:
        index: The item's index in the caller's input.
        source: What the item is: a path, a URL, or the beginning of its text.
        reason: Why it failed.
    """

    def __init__(self, index: int, source: str, reason: str) -> None:
        super().__init__(f"item {index} ({source}): {reason}")
        self.index = index
        self.source = source
        self.reason = reason

    def at(self, index: int) -> ItemError:
        """Return the same failure with another index, for callers that passed on a part of their input."""
        copy = type(self)(index, self.source, self.reason)
        copy.__cause__ = self.__cause__
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self.source, self.reason), _cause_of(self)


class BatchError(Qwen3VLError):
    """Some items of a call failed; the others are done, and their results are in this exception.

    Args:
        errors: The failures, sorted by index.
        results: What the call would have returned, in the caller's order, with NaN (or None) for failed items.
    """

    def __init__(self, errors: Sequence[ItemError], results: Any) -> None:
        first = "; ".join(str(error) for error in errors[:_ERRORS_IN_MESSAGE])
        others = len(errors) - _ERRORS_IN_MESSAGE
        more = f"; and {others} more" if others > 0 else ""
        super().__init__(
            f"{len(errors)} of {len(results)} items failed: {first}{more}. The other items are done: this exception's "
            "`results` has their results, its `errors` the failures."
        )
        self.errors = tuple(errors)
        self.results = results

    def __reduce__(self) -> tuple[type[BatchError], tuple[tuple[ItemError, ...], Any]]:
        return type(self), (self.errors, self.results)


def _cause_of(error: Exception) -> dict[str, Any]:
    """Return the state of a pickled error: its cause if that is an error of the input. Others may not be pickled."""
    return {"__cause__": error.__cause__} if isinstance(error.__cause__, InputError) else {}


def query_error(source: str, reason: object) -> QueryError:
    """Return the error of a query that cannot be used.

    Args:
        source: What the query is: a path, a URL, or the beginning of its text.
        reason: Why it cannot be used.

    Returns:
        The error, for the caller to raise.
    """
    return QueryError(f"the query ({source}): {reason}")


def system_failure(error: InputError) -> BaseException | None:
    """Return what has failed if an error is called that of a query, and the query is not at fault.

    Args:
        error: The error.

    Returns:
        The exception, such as an `OSError` when its images were opened; None if the query cannot be used.
    """
    if not isinstance(error, QueryError):
        return None
    batch = error.__cause__
    causes = [item.__cause__ for item in batch.errors] if isinstance(batch, BatchError) else [batch]
    return next((cause for cause in causes if cause is not None and not isinstance(cause, InputError)), None)
