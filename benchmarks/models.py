"""Checkpoints of the true proportions with random weights: speed needs no others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

from qwen3vl.model import Qwen3VL, read_config
from tests.golden import checkpoint

SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "golden": (96, 4, 4, 64, 6),
    "small": (1024, 14, 8, 512, 12),
    "2B": (2048, 28, 16, 1024, 24),
}
"""Width, layers and heads of the language model, width and blocks of the vision tower: the 2B model's, half, and the
golden checkpoints'."""


def config(size: str, tied: bool) -> dict[str, Any]:
    """config.json with the proportions of Qwen3-VL-Embedding-2B."""
    hidden, layers, heads, seen, depth = SIZES[size]
    made: dict[str, Any] = checkpoint.config(tied)
    if size == "golden":
        return made
    made["text_config"] |= {
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": 128,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    }
    made["vision_config"] |= {
        "depth": depth,
        "hidden_size": seen,
        "intermediate_size": 4 * seen,
        "num_heads": seen // 64,
        "out_hidden_size": hidden,
        "deepstack_visual_indexes": [round(depth * part) for part in (5 / 24, 11 / 24, 17 / 24)],
    }
    return made


def write(folder: Path, size: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Path:
    """`embedding` and `reranker` below a folder for the size and dtype, made once; weights are drawn on the device."""
    folder = folder / f"{size}-{str(dtype).removeprefix('torch.')}"
    for number, name in enumerate(("embedding", "reranker")):
        place = folder / name
        if (place / "model.safetensors").exists():
            continue
        with _sized(size):
            checkpoint.write(place, seed=number, tied=True, embedding=name == "embedding")
        save_file(dict(weights(place, number, dtype, device)), place / "model.safetensors", metadata={"format": "pt"})
    return folder


@contextmanager
def _sized(size: str) -> Iterator[None]:
    """The golden checkpoints' files, but for the weights, for another size."""
    made = {tied: config(size, tied) for tied in (True, False)}
    with (
        mock.patch.object(checkpoint, "config", made.__getitem__),
        mock.patch.object(checkpoint, "parameter_shapes", return_value={}),
    ):
        yield


def weights(folder: Path, seed: int, dtype: torch.dtype, device: str) -> Iterator[tuple[str, Tensor]]:
    """Drawn so that activations stay of order one through the depth of the model."""
    with torch.device("meta"):
        model = Qwen3VL(read_config(folder / "config.json"))
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in model.state_dict().items():
        shape = parameter.shape
        values = torch.randn(shape, generator=generator, device=device)
        if "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif len(shape) == 1:
            values = 0.1 * values
        elif name.endswith(("embed_tokens.weight", "pos_embed.weight")):
            # The head is the token embedding: larger ones would make all scores 0 or 1.
            values = values / math.sqrt(shape[1])
        else:
            values = values * (1.5 / math.sqrt(math.prod(shape[1:])))
        yield f"model.{name}", values.to(dtype).cpu()
