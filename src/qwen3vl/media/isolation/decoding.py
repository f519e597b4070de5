"""Runs decoding operations where a media policy says: in this process, or in a decoder process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import cache
from typing import Any, TypeVar

from qwen3vl.errors import InputError, MediaError, PolicyError
from qwen3vl.media.policy import MediaPolicy

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_PROCESSES = max(4, min(8, os.cpu_count() or 1))
"""Maximum number of decoder processes. At least 4, so that a few files that hang do not hold up the others."""


def decode(policy: MediaPolicy, operation: Callable[..., T], *arguments: Any) -> T:
    """Run an operation that returns one value.

    Args:
        policy: Where it runs, and with which limits.
        operation: A function at the top level of a module. A decoder process imports it by its name.
        *arguments: JSON values, paths, bytes, and arrays of uint8 or int64.

    Returns:
        What the operation returns, which must be of the same types; a decoder process turns tuples into lists.

    Raises:
        MediaError: The operation failed.
        PolicyError: It took too long or too much memory.
    """
    with closing(_run(policy, operation, arguments, limit_each_value=False)) as values:
        value: T = next(values)
        return value


def decode_stream(
    policy: MediaPolicy, operation: Callable[..., Iterator[T]], *arguments: Any, limit_each_value: bool = False
) -> Generator[T]:
    """Run an operation that returns an iterator. A decoder process is occupied until the generator ends or is closed.

    Args:
        policy: Where it runs, and with which limits.
        operation: As for `decode`.
        *arguments: As for `decode`.
        limit_each_value: Whether `policy.seconds` limits the time of each value, rather than of all together.

    Returns:
        A generator of the iterator's values.

    Raises:
        MediaError: The operation failed.
        PolicyError: It took too long or too much memory.
    """
    return _run(policy, operation, arguments, limit_each_value=limit_each_value)


def _run(
    policy: MediaPolicy, operation: Callable[..., Any], arguments: tuple[Any, ...], *, limit_each_value: bool
) -> Generator[Any]:
    if policy.isolated and _can_isolate():
        return _run_isolated(policy, operation, arguments, limit_each_value=limit_each_value)
    return _run_here(operation, arguments)


def _run_here(operation: Callable[..., Any], arguments: tuple[Any, ...]) -> Generator[Any]:
    try:
        result = operation(*arguments)
        if isinstance(result, Iterator):
            yield from result
        else:
            yield result
    except InputError:
        raise
    except MemoryError as error:
        raise PolicyError("there is not enough memory to read it; pass a smaller file") from error
    except Exception as error:  # decoders raise nearly anything on broken files
        raise MediaError(f"it is broken: {type(error).__name__}: {error}; export it again") from error


def _run_isolated(
    policy: MediaPolicy, operation: Callable[..., Any], arguments: tuple[Any, ...], *, limit_each_value: bool
) -> Generator[Any]:
    from qwen3vl.media.isolation.pool import POOL
    from qwen3vl.media.isolation.process import ProcessEndedError

    while True:
        with POOL.lease() as process:
            try:
                yield from process.stream(
                    f"{operation.__module__}:{operation.__qualname__}",
                    arguments,
                    seconds=policy.seconds,
                    memory=policy.memory,
                    limit_each_value=limit_each_value,
                )
            except ProcessEndedError:  # while it was idle
                continue
            return


@cache
def _can_isolate() -> bool:
    """Return whether decoder processes can be started here: they inherit file descriptors, which Windows lacks."""
    if os.name != "posix":
        log.warning("media are decoded in this process, without limits of time and memory: Windows has no isolation")
        return False
    return True
