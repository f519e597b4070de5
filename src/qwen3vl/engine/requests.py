"""What an engine is asked, and what became of it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3vl.errors import InputError, ItemError
from qwen3vl.inputs import Item, as_item
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import ControlToken, TextPart


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to run: its caller's index, its name in errors, and how to write it.

    `write` may read headers and raise `InputError`.
    """

    index: int
    source: str
    write: Callable[[], Sequence[ControlToken | TextPart | UnsizedMedia]]


def make_request(
    index: int, value: Any, write: Callable[[Item], Sequence[ControlToken | TextPart | UnsizedMedia]]
) -> Request:
    """The request of one input.  An input that cannot be read is an error like every other: when the request runs."""
    try:
        item = as_item(value)
    except Exception as error:  # a caller's object may raise anything
        return Request(index, reprlib.repr(value), partial(_raise, error))
    return Request(index, item.name, partial(write, item))


def _raise(error: Exception) -> Sequence[ControlToken | TextPart | UnsizedMedia]:
    raise error


@dataclass(frozen=True, slots=True, eq=False)
class RequestOutput:
    """What became of a request: the last token's hidden state (hidden,) float32, or an error; a notice if cut to fit."""

    index: int
    state: NDArray[np.float32] | None
    error: ItemError | None = None
    notice: str = ""


def failed(request: Request, error: Exception, source: str | None = None) -> RequestOutput:
    """The request's error, which tells its index, its source and the reason."""
    reason = str(error) or type(error).__name__
    if not isinstance(error, InputError):
        reason = f"{type(error).__name__}: {reason}"
    failure = ItemError(request.index, source or request.source, reason)
    failure.__cause__ = bare(error)
    return RequestOutput(request.index, None, failure)


def bare(error: Exception) -> Exception:
    """The error without tracebacks: their frames would keep pixels and activations alive with it."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
