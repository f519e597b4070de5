"""The state of a call of `Engine.run` or `Engine.arun`: its requests that are not done."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from qwen3vl.engine.fairness import FairShare
from qwen3vl.engine.requests import Request, RequestOutput
from qwen3vl.processing.encoded_prompt import Ints

CallEvent: TypeAlias = "Sequence[RequestOutput] | Exception"
"""What a caller is told: outputs, which are none if it should submit further requests; or why the call ends."""

_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class Call:
    """A call that is running. All but `cancelled` and `number` is guarded by the lock of the `RequestQueue`.

    Attributes:
        notify: Tells the caller of outputs. Called on any thread; must not block or raise.
        share: The call's share of the device.
        num_threads: Number of torch's threads that the caller's thread is set to.
        number: Number of the call, in the order in which calls began.
        cancelled: Whether nobody needs its outputs any more. Devices then stop at their next layer.
        submitted: Requests that wait until they may be prepared.
        num_preparing: Number of requests that are being prepared.
        num_decoding: Number of prepared requests whose media are decoded, or wait for that.
        num_tokens: Tokens of its prepared requests that are not done.
        in_entrance: Whether the call is in the queue of those whose requests may be prepared.
        wants_requests: Whether the caller waits until it may submit further requests.
        previous_ids: Token ids of the request that was prepared last.
    """

    notify: Callable[[CallEvent], None]
    share: FairShare
    num_threads: int = field(default_factory=torch.get_num_threads)
    number: int = field(default_factory=lambda: next(_numbers))
    cancelled: bool = False
    submitted: deque[Request] = field(default_factory=deque)
    num_preparing: int = 0
    num_decoding: int = 0
    num_tokens: int = 0
    in_entrance: bool = False
    wants_requests: bool = False
    previous_ids: Ints | None = None

    @property
    def gathering(self) -> bool:
        """Whether further requests are on their way to the devices."""
        return bool(self.submitted or self.num_preparing or self.num_decoding)
