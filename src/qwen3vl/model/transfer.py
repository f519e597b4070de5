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


def copy_into(target: Tensor, values: Tensor) -> None:
    """Copy a tensor into one on a device, as `copy_to_device` does.

    On CUDA this is queued behind the work that still reads the former values.

    Args:
        target: A tensor on any device.
        values: A tensor on the CPU, of the same shape.
    """
    target.copy_(values.pin_memory() if target.is_cuda else values, non_blocking=True)
