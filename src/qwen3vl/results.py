"""Results of single items as a backend yields them, and of a call: arrays in the caller's order, beside them errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qwen3vl.errors import BatchError, InputError, ItemError

OnError = Literal["raise", "collect"]

_MIN_NORM = np.float32(1e-12)
"""The official script normalizes with `torch.nn.functional.normalize`, which divides by max(norm, 1e-12)."""


@dataclass(frozen=True, slots=True, eq=False)
class ItemOutput:
    """The result of one item: a value or an error.

    Attributes:
        index: The item's index in the caller's input.
        value: What was computed for it, float32: a hidden state of the model, a vector or a score; None if it failed.
        error: Why it failed; None if it did not.
        notice: What was shrunk or truncated to fit `max_length`; empty if nothing.
        num_tokens: Number of tokens of the prompt; 0 if the item failed.
    """

    index: int
    value: NDArray[np.float32] | None
    error: ItemError | None = None
    notice: str = ""
    num_tokens: int = 0


def failed_output(index: int, source: str, error: Exception) -> ItemOutput:
    """Create the output of an item that failed.

    Args:
        index: The item's index in the caller's input.
        source: What the item is: a path, a URL, or the beginning of its text.
        error: What was raised. Its tracebacks are removed.

    Returns:
        An output whose error names the item's index, its source and the reason, which includes the type of `error`
        unless that is an `InputError`.
    """
    reason = str(error) or type(error).__name__
    if not isinstance(error, InputError):
        reason = f"{type(error).__name__}: {reason}"
    item_error = ItemError(index, source, reason)
    item_error.__cause__ = without_traceback(error)
    return ItemOutput(index, None, item_error)


def without_traceback(error: Exception) -> Exception:
    """Remove the tracebacks of an error and its causes, whose frames would keep pixels and activations in memory.

    Args:
        error: The error; it is changed.

    Returns:
        The same error.
    """
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error


def truncate_vectors(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Truncate vectors, and normalize them as the official script does.

    Args:
        vectors: One vector or several, (..., at least `dimensions`).
        dimensions: How many values of each are kept.

    Returns:
        Vectors of length 1, (..., dimensions).
    """
    truncated = vectors[..., :dimensions]
    norms = np.linalg.norm(truncated, axis=-1, keepdims=True)
    return truncated / np.maximum(norms, _MIN_NORM)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The results of a call with `on_error="collect"`.

    Attributes:
        values: The array that the call returns otherwise, float32, with NaN for failed items.
        errors: The failures, sorted by index.
        notices: By index, what was shrunk or truncated to fit `max_length`.
        num_tokens: Number of tokens of the prompts that were run, each counted in full although prefixes are shared.
    """

    values: NDArray[np.float32]
    errors: tuple[ItemError, ...] = ()
    notices: Mapping[int, str] = field(default_factory=dict)
    num_tokens: int = 0

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which items have a result: (n,) bool."""
        succeeded = np.ones(len(self.values), dtype=np.bool_)
        succeeded[[error.index for error in self.errors]] = False
        return succeeded


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document's place in a ranking. It unpacks and is indexed like the pair `(index, score)`.

    Attributes:
        index: The document's index in the caller's input.
        score: Probability, between 0 and 1, that the document answers the query; None if it failed.
        error: Why the document has no score; None if it has one.

    Example:
        ```python
        for index, score in reranker.rank(query, documents):
            print(documents[index], score)
        ```
    """

    index: int
    score: float | None
    error: ItemError | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.index, self.score))

    def __getitem__(self, position: int) -> Any:
        return (self.index, self.score)[position]

    def __len__(self) -> int:
        return 2


def rank_scores(batch: Batch) -> list[RankedDocument]:
    """Sort scores, highest first; equal scores keep their order, and failed items come last.

    Args:
        batch: Scores, (n,) float32, with the errors of failed items.

    Returns:
        All n documents.
    """
    errors = {error.index: error for error in batch.errors}
    ranked = [
        RankedDocument(index, None if index in errors else float(score), errors.get(index))
        for index, score in enumerate(batch.values)
    ]
    return sorted(ranked, key=lambda document: (document.score is None, -(document.score or 0.0)))


class OutputCollector:
    """Collects a backend's outputs in the order of their items.

    Args:
        shape: Shape of one result.
        total: Number of items for the progress bar, if known.
        progress: Whether to show a progress bar.
    """

    def __init__(self, shape: tuple[int, ...], *, total: int | None, progress: bool) -> None:
        self._shape = shape
        self._progress_bar = tqdm(total=total, unit="item", smoothing=0.1) if progress else None
        self._values: dict[int, NDArray[np.float32]] = {}
        self._errors: dict[int, ItemError] = {}
        self._notices: dict[int, str] = {}
        self._num_tokens = 0

    def collect(self, outputs: Generator[ItemOutput]) -> Batch:
        """Collect all outputs.

        Args:
            outputs: The outputs, in any order. The generator is closed, also on Ctrl-C, which stops the work.

        Returns:
            Results of shape (n, *shape), errors and notices.
        """
        with self._progress(), closing(outputs):
            for output in outputs:
                self._add(output)
        return self._to_batch()

    async def acollect(self, outputs: AsyncGenerator[ItemOutput]) -> Batch:
        """Collect all outputs as `collect` does, from an asynchronous generator.

        Args:
            outputs: As for `collect`. It is closed, also if the awaiting task is cancelled.

        Returns:
            As for `collect`.
        """
        with self._progress():
            async with aclosing(outputs):
                async for output in outputs:
                    self._add(output)
        return self._to_batch()

    def _progress(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._progress_bar is None else self._progress_bar

    def _add(self, output: ItemOutput) -> None:
        if output.value is not None:
            self._values[output.index] = output.value
        elif output.error is not None:
            self._errors[output.index] = output.error
        self._num_tokens += output.num_tokens
        if output.notice:
            self._notices[output.index] = output.notice
        if self._progress_bar is not None:
            self._progress_bar.update()

    def _to_batch(self) -> Batch:
        array = np.full((len(self._values) + len(self._errors), *self._shape), np.nan, dtype=np.float32)
        for index, value in self._values.items():
            array[index] = value
        errors = tuple(self._errors[index] for index in sorted(self._errors))
        return Batch(array, errors, dict(sorted(self._notices.items())), self._num_tokens)


def raise_errors(batch: Batch, on_error: OnError) -> None:
    """Raise `BatchError` if items failed and `on_error` is `"raise"`."""
    if batch.errors and on_error == "raise":
        raise BatchError(batch.errors, batch.values)


def check_on_error(on_error: str) -> None:
    """Raise `ValueError` unless `on_error` is `"raise"` or `"collect"`."""
    if on_error not in ("raise", "collect"):
        raise ValueError(f"on_error is {on_error!r}; it must be 'raise' or 'collect'")


def iterate_inputs(inputs: Any) -> Iterator[Any]:
    """Iterate over inputs; a single str, mapping or other single input counts as a list of one."""
    return iter([inputs]) if _is_single(inputs) else iter(inputs)


def count_inputs(inputs: Any) -> int | None:
    """Return the number of inputs; None if it is not known before iterating."""
    if _is_single(inputs):
        return 1
    return len(inputs) if isinstance(inputs, Sequence) else None


def _is_single(inputs: Any) -> bool:
    """Return whether this is one input, even if it is iterable: a text, a mapping, bytes, or an array of pixels."""
    if isinstance(inputs, (str, bytes, bytearray, BytesIO, Mapping)) or not isinstance(inputs, Iterable):
        return True
    return getattr(inputs, "ndim", 0) >= 2 and str(getattr(inputs, "dtype", "")).endswith("uint8")
