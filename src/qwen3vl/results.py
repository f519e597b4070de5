"""Gathers outcomes into arrays in the caller's order, with errors beside them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qwen3vl.engine import RequestOutput
from qwen3vl.errors import BatchError, ItemError

OnError = Literal["raise", "collect"]
Each = TypeVar("Each")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The results of a call that collects errors.

    `values` is the array that the call returns otherwise, with NaN where an item failed; `errors` the
    failures in the caller's order; `notices` tells by index what was shrunk or cut to fit.
    """

    values: NDArray[np.float32]
    errors: tuple[ItemError, ...] = ()
    notices: Mapping[int, str] = field(default_factory=dict)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which items have a result: (n,) bool."""
        good = np.ones(len(self.values), dtype=np.bool_)
        good[[error.index for error in self.errors]] = False
        return good


def gather(
    outcomes: Generator[RequestOutput],
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    shape: tuple[int, ...],
    *,
    total: int | None,
    progress: bool,
) -> Batch:
    """Runs all outcomes through `finish` (hidden state to result) into an array of (n, *shape)."""
    rows: dict[int, NDArray[np.float32]] = {}
    errors: dict[int, ItemError] = {}
    notices: dict[int, str] = {}
    with closing(outcomes):  # a Ctrl-C here is to stop the model, too
        for outcome in tqdm(outcomes, total=total, disable=not progress, unit="item", smoothing=0.1):
            if outcome.state is not None:
                rows[outcome.index] = finish(outcome.state)
            elif outcome.error is not None:
                errors[outcome.index] = outcome.error
            if outcome.notice:
                notices[outcome.index] = outcome.notice
    values = np.full((len(rows) + len(errors), *shape), np.nan, dtype=np.float32)
    for index, row in rows.items():
        values[index] = row
    return Batch(values, tuple(errors[index] for index in sorted(errors)), dict(sorted(notices.items())))


def settle(batch: Batch, on_error: OnError) -> Batch:
    """The batch, or `BatchError` where items failed and the caller wants that raised."""
    if batch.errors and on_error == "raise":
        raise BatchError(batch.errors, batch.values)
    return batch


def check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "collect"):
        raise ValueError(f"on_error is {on_error!r}; it may be 'raise' or 'collect'")


def each(inputs: Any) -> Iterator[Any]:
    """The inputs one by one; a single str, mapping or other input stands for itself."""
    return iter([inputs]) if _single(inputs) else iter(inputs)


def size(inputs: Any) -> int | None:
    """How many inputs there are, where that can be known beforehand."""
    if _single(inputs):
        return 1
    return len(inputs) if isinstance(inputs, Sequence) else None


def _single(inputs: Any) -> bool:
    """Whether this is one input, though it may be iterable: a text, a mapping, a file's bytes, an array of pixels."""
    if isinstance(inputs, (str, bytes, bytearray, BytesIO, Mapping)) or not isinstance(inputs, Iterable):
        return True
    return getattr(inputs, "ndim", 0) >= 2 and str(getattr(inputs, "dtype", "")).endswith("uint8")
