"""What a client's error means, and when a request is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a request is tried again that may succeed later.

    The n-th pause is between half and all of min(longest, first * 2**n) seconds, by chance, so that many
    clients do not come back at once; a server's own Retry-After counts where it is longer, up to 3 * longest.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 20.0

    def pause(self, failed: int, asked: float = 0.0) -> float:
        """Seconds to wait after the `failed`-th failure (from 0)."""
        own = min(self.longest, self.first * 2.0**failed) * random.uniform(0.5, 1.0)
        return max(own, min(asked, 3 * self.longest))


@dataclass(frozen=True, slots=True)
class ClientFailure:
    """What a client's exception means.

    transient: it may succeed later; invalid_request: what was sent is not taken, by this store or any like it;
    wait: seconds that the server asks for.
    """

    reason: str
    transient: bool = False
    invalid_request: bool = False
    wait: float = 0.0


def out_of_disk(reason: str) -> bool:
    """Whether an error's text tells of a full disk, which servers report under statuses that usually pass."""
    told = reason.lower()
    return any(words in told for words in ("no space left", "disk is full", "disk full", "out of disk"))


def answered(who: str, status: int, reason: str, fix: str, wait: float = 0.0) -> ClientFailure:
    """What an HTTP status means; `fix` is what to do where the credentials are refused."""
    if status in (401, 403):
        return ClientFailure(f"{who} refuses the credentials ({status}: {reason}); {fix}")
    transient = (status in (408, 429) or status >= 500) and status != 507 and not out_of_disk(reason)
    return ClientFailure(
        f"{who} answers {status}: {reason}", transient, invalid_request=status in (400, 413, 422), wait=wait
    )
