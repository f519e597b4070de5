"""Equal shares of a device for its callers: start-time fair queueing with bursts of one batch.

Every request gets a start tag, in tokens of virtual time, and devices take requests in the order of their tags (Goyal,
Vin and Cheng, "Start-Time Fair Queuing", SIGCOMM 1996). A caller's tags advance by the tokens of its requests. Virtual
time advances by the tokens that a device computes, divided by the number of callers. So a new caller goes before the
rest of a large job, and a large job gets its share however many small calls arrive.
"""

from __future__ import annotations

from qwen3vl.engine.timing import DeviceTimestamp


class FairClock:
    """The virtual time of a device, and the calls that are running.

    Safe for threads, for garbage collection and for forks without a lock: sets change atomically, and an update of the
    time that is lost delays nobody for long.

    Attributes:
        now: Virtual time, in tokens for each caller.
        active_since: When the device got work after it had none; None if it has not had any.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.active_since: DeviceTimestamp | None = None
        self._calls: set[int] = set()

    @property
    def idle(self) -> bool:
        """Whether no call is running."""
        return not self._calls

    def enter(self, call: int) -> None:
        """Count a call.

        Args:
            call: Number of the call.
        """
        self._calls.add(call)

    def leave(self, call: int) -> None:
        """Count a call no longer.

        Args:
            call: Number of the call.
        """
        self._calls.discard(call)

    def begin(self, tag: float) -> None:
        """Note that requests begin to run: virtual time is at least the tag of the first one.

        Args:
            tag: Its tag.
        """
        self.now = max(self.now, tag)

    def advance(self, num_tokens: int) -> None:
        """Note that tokens were computed.

        Args:
            num_tokens: Number of tokens.
        """
        self.now += num_tokens / max(1, len(self._calls))


class FairShare:
    """The tags of one call's requests. Call it from one thread at a time.

    Args:
        clock: The virtual time of the device.
        max_lead: Tokens by which tags may be ahead of virtual time. A call that used a device that was free otherwise
            does not pay for more than this when others come.
    """

    def __init__(self, clock: FairClock, max_lead: float) -> None:
        self._clock = clock
        self._max_lead = max_lead
        self._end = 0.0
        self._burst_tag = 0.0
        self._burst_tokens = 0

    def next_tag(self, num_tokens: int, max_burst: int) -> float:
        """Return the tag of the next request.

        Requests of one burst have the tag of its first one, so that they are run in one batch and share prefixes
        (as the quantum does in deficit round robin: Shreedhar and Varghese, SIGCOMM 1995).

        Args:
            num_tokens: Tokens of the request.
            max_burst: Maximum number of tokens of a burst.

        Returns:
            The tag.
        """
        now = self._clock.now
        start = min(max(self._end, now), now + self._max_lead)
        if self._end < now or self._burst_tokens + num_tokens > max_burst:
            self._burst_tag, self._burst_tokens = start, 0
        self._burst_tokens += num_tokens
        self._end = start + num_tokens
        return self._burst_tag
