"""Equal shares of devices for their callers, by start-time fair queueing.

Every call has a tag, in tokens of virtual time, and a device takes requests of the call with the least tag (Goyal, Vin
and Cheng, "Start-Time Fair Queuing", SIGCOMM 1996), as many as fill a batch, so that they share prefixes. The tag
advances by the tokens that were taken; virtual time, by the tokens that devices compute, divided by the number of calls
that have requests ready or running. So a new call goes before the rest of a large one, and a large call gets its share
however many small ones come.
"""

from __future__ import annotations

from typing import NamedTuple

from qwen3vl.concurrency.fork_safety import register_thread_owner


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
    """Virtual time. There is one for all devices of a process, so that models on several devices can be compared.

    It has no lock: sets change atomically, and an update of the time that is lost in a race is made up for by the next.

    Attributes:
        now: Virtual time, in tokens for each call.
    """

    def __init__(self) -> None:
        register_thread_owner(self)

    def start_threads(self) -> None:
        """Begin at 0, without calls; called again in each forked process."""
        self.now = 0.0
        self._calls: set[int] = set()

    def enter(self, call: int) -> None:
        """Count a call: it has requests that are ready or running.

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


CLOCK = FairClock()
"""The virtual time of this process."""


class FairShare:
    """A call's share of the devices. Use it from one thread at a time.

    Args:
        clock: The virtual time.
        call: Number of the call.

    Attributes:
        turn: When it is the call's turn.
    """

    def __init__(self, clock: FairClock, call: int) -> None:
        self._clock = clock
        self.turn = Turn(0.0, 0, call)

    def begin(self) -> None:
        """Note that the call has requests after it had none. Time in which it had none is lost to it."""
        self._clock.enter(self.turn.call)
        self.turn = self.turn._replace(tag=max(self.turn.tag, self._clock.now))

    def end(self) -> None:
        """Note that the call has no requests any more that are ready or running."""
        self._clock.leave(self.turn.call)

    def lead(self) -> None:
        """Note that it is the call's turn: virtual time is at least its tag."""
        self._clock.now = max(self._clock.now, self.turn.tag)

    def charge(self, num_tokens: int, max_lead: int) -> None:
        """Note that requests of the call are run.

        Args:
            num_tokens: Their tokens.
            max_lead: Tokens by which the tag may be ahead of virtual time: a call that filled batches of a device that
                was free otherwise does not pay for more than this when others come.
        """
        tag, num_served, call = self.turn
        now = self._clock.now
        self.turn = Turn(min(max(tag, now) + num_tokens, now + max_lead), num_served + num_tokens, call)
