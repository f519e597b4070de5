"""Copies of small tensors to the model's device."""

from __future__ import annotations

from torch import Tensor, device


def copy_to_device(values: Tensor, target: device) -> Tensor:
    """Copy a tensor to a device, through pinned memory if that lets the host go on without waiting.

    Args:
        values: A tensor on the CPU.
        target: The device to copy to.

    Returns:
        The tensor on the device; `values` itself if the device is the CPU.
    """
    if target.type == "cuda":
        return values.pin_memory().to(target, non_blocking=True)
    return values.to(target)
