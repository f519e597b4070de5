"""Which devices a model runs on, in which numbers, and how much of it at a time."""

from __future__ import annotations

import torch

from qwen3vl.model import ModelConfig
from qwen3vl.model.quantized import Bits

MOST_TOKENS = 16384
"""Of a pack: enough to keep an H100 busy; more would only take memory."""
CPU_TOKENS = 4096
SHARE = 0.6
"""Of the free memory of a GPU that a pack's activations may take; the rest is for kernels' own and for others."""


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


def choose_dtype(name: str, device: torch.device) -> tuple[torch.dtype, Bits | None]:
    """What is computed in, and the bits of the weights if these are fewer ("int8", "fp8").

    "auto" is bfloat16 on CUDA and float32 elsewhere, as is what narrow weights are computed in.
    """
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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


def token_budget(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> int:
    """Tokens of a pack whose activations fit the memory that is free now, with pictures in all of them."""
    if device.type != "cuda":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(MOST_TOKENS, max(1024, int(free * SHARE) // token_bytes(config, dtype)))


def token_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes that are alive at once for each token, at most: in an MLP, or in the vision tower's four patches."""
    text, vision = config.text, config.vision
    heads = (text.heads + 2 * text.kv_heads) * text.head_dim
    language = 4 * text.hidden + 3 * text.mlp + 3 * heads
    patch = 4 * vision.hidden + 2 * vision.mlp + 9 * vision.hidden
    seen = (1 + len(vision.deepstack)) * vision.out
    pixels = 3 * vision.merge**2 * vision.patch_values
    return (language + seen + vision.merge**2 * patch) * dtype.itemsize + pixels * torch.float32.itemsize
