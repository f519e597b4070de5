"""Which devices a model runs on, and in which numbers."""

from __future__ import annotations

import torch

from qwen3vl.model.layers.quantized import WeightFormat


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """The devices of "auto", "cpu", "cuda", "cuda:1", "mps", several with commas between them, or "cuda:all".

    "auto" is the first CUDA device, else Apple's GPU, else the CPU.  Raises `ValueError` where one cannot be used.
    """
    found: list[torch.device] = []
    for name in names.split(","):
        if name.strip() == "cuda:all":
            found += [_device(f"cuda:{index}") for index in range(torch.cuda.device_count())] or [_device("cuda")]
        else:
            found.append(_device(name.strip()))
    return tuple(found)


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
    """What is computed in, and the bits of the weights if these are fewer ("int8", "fp8").

    "auto" is bfloat16 on CUDA and float32 elsewhere, as is what narrow weights are computed in.
    """
    names = {each: getattr(torch, each) for each in ("float32", "bfloat16", "float16", "float64")}
    if name in names:
        return names[name], None
    wide = torch.bfloat16 if device.type == "cuda" else torch.float32
    if name == "int8":
        return wide, "int8"
    if name == "fp8":
        return wide, "fp8"
    if name != "auto":
        raise ValueError(f"dtype is {name!r}; it may be auto, {', '.join(names)}, int8 or fp8")
    return wide, None
