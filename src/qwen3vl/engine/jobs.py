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
from qwen3vl.planning import Draft
from qwen3vl.prompt import Control, Text


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt to run: its caller's index, its name in errors, and how to write it.

    `write` may read headers and raise `InputError`.
    """

    index: int
    source: str
    write: Callable[[], Sequence[Control | Text | Draft]]


def job_of(index: int, value: Any, write: Callable[[Item], Sequence[Control | Text | Draft]]) -> Job:
    """The job of one input.  An input that cannot be read is an error like every other: when the job runs."""
    try:
        item = as_item(value)
    except Exception as error:  # a caller's object may raise anything
        return Job(index, reprlib.repr(value), partial(_raise, error))
    return Job(index, item.name, partial(write, item))


def _raise(error: Exception) -> Sequence[Control | Text | Draft]:
    raise error


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a job: the last token's hidden state (hidden,) float32, or an error; a notice if cut to fit."""

    index: int
    state: NDArray[np.float32] | None
    error: ItemError | None = None
    notice: str = ""


def failed(job: Job, error: Exception, source: str | None = None) -> Outcome:
    """The job's error, which tells its index, its source and the reason."""
    reason = str(error) or type(error).__name__
    if not isinstance(error, InputError):
        reason = f"{type(error).__name__}: {reason}"
    failure = ItemError(job.index, source or job.source, reason)
    failure.__cause__ = bare(error)
    return Outcome(job.index, None, failure)


def bare(error: Exception) -> Exception:
    """The error without tracebacks: their frames would keep pixels and activations alive with it."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
