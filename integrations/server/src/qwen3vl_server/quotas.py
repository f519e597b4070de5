"""Quotas: how much all requests together may hold, so that a crowd of clients cannot exhaust the server's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic

from qwen3vl_server.errors import RequestError

_MAX_RETRY_AFTER_S = 60
_NEWEST_WEIGHT = 0.1
"""Weight of the newest lease in the mean duration of leases."""


class Quota:
    """An amount that all requests share. It belongs to one event loop, and is not thread-safe.

    Args:
        limit: How much all leases together may hold.
        unit: What is counted, for the error message.
        clock: Returns the time in seconds.

    Attributes:
        used: How much they hold at present.
    """

    def __init__(self, limit: int, unit: str, clock: Callable[[], float] = monotonic) -> None:
        self.used = 0
        self._limit = limit
        self._unit = unit
        self._clock = clock
        self._mean_lease_s = 0.0

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Return a context with an empty lease, which is given back at the end."""
        lease = Lease(self)
        started_s = self._clock()
        try:
            yield lease
        finally:
            self.used -= lease.held
            if lease.held:
                self._mean_lease_s += _NEWEST_WEIGHT * (self._clock() - started_s - self._mean_lease_s)

    def add(self, amount: int) -> None:
        """Count an amount.

        Args:
            amount: How much more is used.

        Raises:
            RequestError: It would exceed the limit: status 429.
        """
        if self.used + amount > self._limit:
            raise RequestError(
                429,
                f"the server is busy: it has {self.used} of at most {self._limit} {self._unit}, and this request would "
                f"add {amount}. Try again later",
                code="overloaded",
                retry_after_s=self._retry_after_s(self.used + amount - self._limit),
            )
        self.used += amount

    def _retry_after_s(self, excess: int) -> int:
        """Return when an amount is given back: by Little's law, used / mean lease is given back per second."""
        return min(max(ceil(excess * self._mean_lease_s / max(self.used, 1)), 1), _MAX_RETRY_AFTER_S)


class Lease:
    """What one request holds of a quota.

    Args:
        quota: The quota.

    Attributes:
        held: How much it holds.
    """

    def __init__(self, quota: Quota) -> None:
        self.held = 0
        self._quota = quota

    def add(self, amount: int) -> None:
        """Hold more.

        Args:
            amount: How much more.

        Raises:
            RequestError: The quota is exhausted: status 429.
        """
        self._quota.add(amount)
        self.held += amount
