"""Which of several servers gets the next request."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_PAUSE_S = 0.25
"""Seconds for which a server gets no requests after it failed; doubled by each further failure, and made random."""
MAX_PAUSE_S = 8.0
"""Seconds of the longest such pause."""


@dataclass(slots=True, eq=False)
class Server:
    """A server, and what is known of its state.

    Attributes:
        url: Its address.
        num_requests: Number of requests that it has to answer at present.
        num_failures: Number of times that it failed since it answered last.
        backoff_until: End of the pause after its last failure, as `time.monotonic` tells it. An answer ends it.
        refused_until: Until when it wants no requests. Answers to requests that it had before do not end this pause.
    """

    url: str
    num_requests: int = 0
    num_failures: int = 0
    backoff_until: float = 0.0
    refused_until: float = 0.0

    def succeed(self) -> None:
        """Record an answer."""
        self.num_failures, self.backoff_until = 0, 0.0

    def fail(self, pause_s: float | None = None) -> None:
        """Record a failure. That of several requests which failed at the same time counts once.

        Args:
            pause_s: Seconds for which the server wants no requests; None is by the number of failures.
        """
        if not self.paused:
            self.num_failures += 1
            if pause_s is None:
                longest = min(FIRST_PAUSE_S * 2 ** (self.num_failures - 1), MAX_PAUSE_S)
                self.backoff_until = time.monotonic() + random.uniform(longest / 2, longest)
        if pause_s is not None:
            self.refuse(pause_s)

    def refuse(self, pause_s: float) -> None:
        """Record that the server wants no requests for a time.

        Args:
            pause_s: Seconds.
        """
        self.refused_until = max(self.refused_until, time.monotonic() + pause_s)

    @property
    def paused_until(self) -> float:
        """When it may get requests again, as `time.monotonic` tells it."""
        return max(self.backoff_until, self.refused_until)

    @property
    def paused(self) -> bool:
        """Whether it gets no requests at present."""
        return time.monotonic() < self.paused_until


class ServerPool:
    """Servers of the same model. It belongs to one event loop, and is not thread-safe.

    Args:
        urls: Their addresses.

    Attributes:
        servers: The servers.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.servers = [Server(url) for url in urls]

    async def choose(self) -> Server:
        """Return the server that has the fewest requests. If all are paused, wait for the first that is not."""
        while not (ready := [server for server in self.servers if not server.paused]):
            pause_s = min(server.paused_until for server in self.servers) - time.monotonic()
            await asyncio.sleep(max(pause_s, 0.0))
        fewest = min(server.num_requests for server in ready)
        return random.choice([server for server in ready if server.num_requests == fewest])
