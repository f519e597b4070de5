"""Equal shares of a device for its callers, by start-time fair queueing.

Every call has a tag, in tokens of virtual time, and the device takes requests of the call with the least tag (Goyal,
Vin and Cheng, "Start-Time Fair Queuing", SIGCOMM 1996), as many as fill a batch, so that they share prefixes. The tag
advances by the tokens that were taken; virtual time, by the tokens that the device computes, divided by the number of
calls. So a new call goes before the rest of a large one, and a large call gets its share however many small ones come.
"""

from __future__ import annotations

from typing import NamedTuple

from qwen3vl.engine.timing import DeviceTimestamp


class Turn(NamedTuple):
    """When it is a call's turn: turns are compared, and the least is the next.

    Attributes:
        tag: The tag, in tokens of virtual time.
        num_served: Tokens that the call has got; among equal tags, who has got less is first.
        call: Number of the call.
    """

    tag: float
    num_served: int
    call: int


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

    def advance(self, num_tokens: int) -> None:
        """Note that tokens were computed.

        Args:
            num_tokens: Number of tokens.
        """
        self.now += num_tokens / max(1, len(self._calls))


class FairShare:
    """A call's share of a device. Use it from one thread at a time.

    Args:
        clock: The virtual time of the device.
        call: Number of the call.
    """

    def __init__(self, clock: FairClock, call: int) -> None:
        self._clock = clock
        self._call = call
        self._tag = 0.0
        self._num_served = 0

    @property
    def turn(self) -> Turn:
        """When it is the call's turn."""
        return Turn(self._tag, self._num_served, self._call)

    def begin(self) -> None:
        """Note that the call has requests that are ready after it had none. Time in which it had none is lost to it."""
        self._tag = max(self._tag, self._clock.now)

    def lead(self) -> None:
        """Note that it is the call's turn: virtual time is at least its tag."""
        self._clock.now = max(self._clock.now, self._tag)

    def charge(self, num_tokens: int, max_lead: int) -> None:
        """Note that requests of the call are run.

        Args:
            num_tokens: Their tokens.
            max_lead: Tokens by which the tag may be ahead of virtual time: a call that filled batches of a device that
                was free otherwise does not pay for more than this when others come.
        """
        self._num_served += num_tokens
        self._tag = min(self._tag + num_tokens, self._clock.now + max_lead)
