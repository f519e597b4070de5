"""Equal shares of devices for their callers, by start-time fair queueing.

Every call has a tag, in tokens of virtual time, and a device takes requests of the call with the least tag (Goyal, Vin
and Cheng, "Start-Time Fair Queuing", SIGCOMM 1996), as many as fill a batch, so that they share prefixes. The tag
advances by the tokens that were taken; virtual time, by the tokens that devices compute, divided by the number of calls
that have prepared requests. So a new call goes before the rest of a large one, and a large call gets its share however
many small ones come.
"""

from __future__ import annotations

from typing import NamedTuple

from qwen3vl.concurrency.fork_safety import init_in_each_process


class Turn(NamedTuple):
    """A call's place in the order of service: the call with the least turn is served next.

    Attributes:
        tag: The call's tag, in tokens of virtual time.
        num_served: Tokens of the call that were run so far. Of calls with equal tags, the one with fewer is first.
        call: Number of the call.
    """

    tag: float
    num_served: int
    call: int


class FairClock:
    """Virtual time. There is one for all devices of a process, so that models on several devices can be compared.

    It has no lock: sets change atomically, and if an update of the time is lost in a race, `FairShare.advance_clock`
    makes up for it.

    Attributes:
        now: Virtual time: the tokens that each call could have got so far.
    """

    def __init__(self) -> None:
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Begin at 0, without calls."""
        self.now = 0.0
        self._calls: set[int] = set()

    def add_call(self, call: int) -> None:
        """Count a call that has requests to be served.

        Args:
            call: Number of the call.
        """
        self._calls.add(call)

    def remove_call(self, call: int) -> None:
        """Count a call no longer.

        Args:
            call: Number of the call.
        """
        self._calls.discard(call)

    def advance(self, num_tokens: int) -> None:
        """Advance virtual time by an equal share of the tokens that were computed.

        Args:
            num_tokens: Number of tokens that a device computed.
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
        turn: The call's place in the order of service.
    """

    def __init__(self, clock: FairClock, call: int) -> None:
        self._clock = clock
        self.turn = Turn(0.0, 0, call)

    def activate(self) -> None:
        """Note that the call has requests to be served after it had none. It gets no credit for the time before."""
        self._clock.add_call(self.turn.call)
        self.turn = self.turn._replace(tag=max(self.turn.tag, self._clock.now))

    def deactivate(self) -> None:
        """Note that the call has no requests to be served any more."""
        self._clock.remove_call(self.turn.call)

    def advance_clock(self) -> None:
        """Advance virtual time to the tag of this call, which is served now: no other has a lower one."""
        self._clock.now = max(self._clock.now, self.turn.tag)

    def charge(self, num_tokens: int, max_debt: int) -> None:
        """Advance the tag, since requests of the call are served.

        Args:
            num_tokens: Their tokens.
            max_debt: Maximum tokens by which the tag may be ahead of virtual time. A call that had a device for itself
                does not wait longer than that when others come.
        """
        tag, num_served, call = self.turn
        now = self._clock.now
        self.turn = Turn(min(max(tag, now) + num_tokens, now + max_debt), num_served + num_tokens, call)
