"""Choice of devices and dtypes by name."""

from __future__ import annotations

import torch

from qwen3vl.model.layers.onednn import supports_bfloat16
from qwen3vl.model.layers.quantized import WeightFormat

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """Return the devices that a setting names.

    Args:
        names: `"auto"` (the first CUDA device, else Apple's GPU, else the CPU), `"cpu"`, `"cuda"`, `"cuda:1"` or
            `"mps"`; several with commas between them; or `"cuda:all"`.

    Returns:
        The devices in this order. A name may occur more than once; then so does the device.

    Raises:
        ValueError: A device does not exist or cannot be used.
    """
    devices: list[torch.device] = []
    for name in names.split(","):
        if name.strip() == "cuda:all":
            # Without a CUDA device, choosing "cuda" raises an error that says why.
            devices += [_device(f"cuda:{index}") for index in range(torch.cuda.device_count())] or [_device("cuda")]
        else:
            devices.append(_device(name.strip()))
    return tuple(devices)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} cannot be used here: {error}") from error
    return device


def choose_dtype(name: str, device: torch.device) -> tuple[torch.dtype, WeightFormat | None]:
    """Return the dtype of computations and, if weights are quantized, their format.

    Args:
        name: `"auto"`, `"float32"`, `"bfloat16"`, `"float16"`, `"float64"`, `"int8"` or `"fp8"`.
        device: The device that decides what `"auto"` is: bfloat16 on CUDA devices with instructions for it, float32
            elsewhere. With quantized weights, computations are in bfloat16 on every device with instructions for it.

    Returns:
        The dtype, and `"int8"`, `"fp8"` or None.

    Raises:
        ValueError: There is no such dtype.
    """
    if name in _DTYPES:
        return _DTYPES[name], None
    dtype = torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if name == "auto":  # on a CPU exact results come first
        return dtype if device.type == "cuda" else torch.float32, None
    if name == "int8":
        return dtype, "int8"
    if name == "fp8":
        return dtype, "fp8"
    raise ValueError(f"dtype is {name!r}; it may be auto, {', '.join(_DTYPES)}, int8 or fp8")


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16: a T4, as all before Ampere, has none."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch emulates bfloat16 on other GPUs, slowly
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and supports_bfloat16()
