"""Points in time of a device's work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTimestamp:
    """A point in time on a device.

    Attributes:
        host_time_s: Reading of the host's `time.perf_counter`, in seconds.
        event: On CUDA, an event in the device's stream, which is reached when the work queued before it is done.
    """

    host_time_s: float
    event: torch.cuda.Event | None = None

    @classmethod
    def now(cls, device: torch.device) -> DeviceTimestamp:
        """Record the present time of a device; on CUDA, the time at which the work queued so far will be done.

        Args:
            device: The device.

        Returns:
            The timestamp.
        """
        if device.type != "cuda":
            return cls(time.perf_counter())
        with use_device(device):
            # Without `blocking`, a thread that waits for the device would keep a core of the host busy.
            event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.default_stream(device))
        return cls(time.perf_counter(), event)

    @property
    def reached(self) -> bool:
        """Whether the device has reached this point, or a kernel before it failed. Does not wait."""
        try:
            return self.event is None or bool(self.event.query())  # type: ignore[no-untyped-call]
        except RuntimeError:  # a failed kernel is reported here; whoever fetches the results gets the error
            return True

    def wait(self) -> None:
        """Wait until the device has reached this point.

        Raises:
            RuntimeError: A kernel queued before this point failed.
        """
        if self.event is not None:
            self.event.synchronize()

    def seconds_since(self, earlier: DeviceTimestamp) -> float:
        """Measure the time between two points of one device. On CUDA, waits until both are reached.

        Args:
            earlier: The earlier point.

        Returns:
            Seconds.
        """
        if self.event is None or earlier.event is None:
            return self.host_time_s - earlier.host_time_s
        earlier.event.synchronize()
        self.event.synchronize()
        return float(earlier.event.elapsed_time(self.event)) / 1000  # milliseconds to seconds


@contextmanager
def use_device(device: torch.device) -> Iterator[None]:
    """Make a CUDA device the current one; does nothing for other devices.

    Args:
        device: The device.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            yield
    else:
        yield
