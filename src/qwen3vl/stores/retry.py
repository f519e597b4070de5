"""When a failed request to a vector database is repeated."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qwen3vl._deprecation import deprecated_alias, renamed_arguments
from qwen3vl.errors import StoreError
from qwen3vl.stores.failures import ClientFailure


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is attempted, and how long to wait in between: exponential backoff with jitter.

    The delay after failure n (from 0) is random between half and all of
    `min(max_delay_s, initial_delay_s * 2**n)`, so that many clients do not retry at the same moment. If the
    server asks for a longer delay (`Retry-After`), that is used instead, up to `3 * max_delay_s`.

    Attributes:
        attempts: Maximum number of attempts, including the first.
        initial_delay_s: Upper bound in seconds of the first delay.
        max_delay_s: Upper bound in seconds of every delay that the server does not ask for.

    Raises:
        ValueError: `attempts` is less than 1.

    Example:
        ```python
        QdrantStore(client, retry=Retry(attempts=3, max_delay_s=5))
        ```
    """

    attempts: int = 6
    initial_delay_s: float = 0.5
    max_delay_s: float = 20.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be at least 1")

    def delay_s(self, failures: int, retry_after_s: float = 0.0) -> float:
        """Return the number of seconds to wait before the next attempt.

        Args:
            failures: Number of failures before the latest one.
            retry_after_s: Seconds that the server asks for; 0 if it does not.

        Returns:
            Seconds, at most `3 * max_delay_s`.
        """
        bound = min(self.max_delay_s, self.initial_delay_s * 2.0**failures)
        return max(bound * random.uniform(0.5, 1.0), min(retry_after_s, 3 * self.max_delay_s))

    first = deprecated_alias("Retry", "first", "initial_delay_s")
    longest = deprecated_alias("Retry", "longest", "max_delay_s")


Retry.__init__ = renamed_arguments(first="initial_delay_s", longest="max_delay_s")(  # type: ignore[method-assign]
    Retry.__init__
)


async def with_retry(
    call: Callable[[], Any],
    retry: Retry,
    classify_error: Callable[[Exception], ClientFailure | None],
    *,
    name: str,
    is_async: bool,
    timeout_s: float | None = None,
) -> Any:
    """Call a database client; repeat the call after transient failures.

    Args:
        call: Makes one request.
        retry: How often the call is repeated, and after which delays.
        classify_error: Returns the meaning of the client's exceptions; None for exceptions that are not the client's.
        name: The collection, for messages.
        is_async: Whether the call returns a coroutine.
        timeout_s: Seconds after which an attempt is cancelled, if the call returns a coroutine; None for no limit.

    Returns:
        What the call, or its coroutine, returns.

    Raises:
        StoreError: The call failed and is not repeated any more. The client's exception is its cause.
    """
    for failures in range(retry.attempts):
        try:
            if not is_async:
                return call()
            async with asyncio.timeout(timeout_s):
                return await call()
        except Exception as error:
            failure = classify_error(error)
            if failure is None:
                raise
            if not failure.transient or failures + 1 == retry.attempts:
                attempts = f" (after {failures + 1} attempts)" if failures else ""
                raise StoreError(
                    f"{name}: {failure.reason}{attempts}",
                    transient=failure.transient,
                    invalid_request=failure.invalid_request,
                ) from error
            delay_s = retry.delay_s(failures, failure.wait)
            await asyncio.sleep(delay_s) if is_async else time.sleep(delay_s)
    raise AssertionError("Retry.attempts is at least 1")
