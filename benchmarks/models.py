"""Checkpoints with the proportions of the published models and random weights, which suffice to measure speed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

from qwen3vl.model import Qwen3VL, read_config
from tests.golden import checkpoint


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The proportions of a model.

    Attributes:
        hidden_size: Hidden size of the language model; its MLP is three times as wide.
        num_layers: Number of its layers.
        num_heads: Number of its query heads, of 128 values each; it has half as many key heads.
        vision_hidden_size: Hidden size of the vision tower; its MLP is four times as wide, its heads have 64 values.
        vision_depth: Number of the vision tower's blocks.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    vision_hidden_size: int
    vision_depth: int


SIZES = {
    "golden": ModelSize(96, 4, 4, 64, 6),
    "small": ModelSize(1024, 14, 8, 512, 12),
    "2B": ModelSize(2048, 28, 16, 1024, 24),
}
"""The golden test checkpoints', half of the 2B model's, and the 2B model's proportions."""


def model_config(size: str, tied: bool) -> dict[str, Any]:
    """Return the content of `config.json` with the proportions of Qwen3-VL-Embedding-2B.

    Args:
        size: A key of `SIZES`.
        tied: Whether the output head is the input embedding.

    Returns:
        The configuration, as transformers 4.57 writes it.
    """
    config: dict[str, Any] = checkpoint.config(tied)
    if size == "golden":
        return config
    proportions = SIZES[size]
    config["text_config"] |= {
        "hidden_size": proportions.hidden_size,
        "intermediate_size": 3 * proportions.hidden_size,
        "num_hidden_layers": proportions.num_layers,
        "num_attention_heads": proportions.num_heads,
        "num_key_value_heads": proportions.num_heads // 2,
        "head_dim": 128,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    }
    config["vision_config"] |= {
        "depth": proportions.vision_depth,
        "hidden_size": proportions.vision_hidden_size,
        "intermediate_size": 4 * proportions.vision_hidden_size,
        "num_heads": proportions.vision_hidden_size // 64,
        "out_hidden_size": proportions.hidden_size,
        "deepstack_visual_indexes": [round(proportions.vision_depth * part) for part in (5 / 24, 11 / 24, 17 / 24)],
    }
    return config


def write(folder: Path, size: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Path:
    """Write an embedding model and a reranker, unless they exist.

    Args:
        folder: Where the models of all sizes are.
        size: A key of `SIZES`.
        dtype: The dtype of the weights.
        device: The device on which they are drawn.

    Returns:
        The folder of this size and dtype, with the checkpoints `embedding` and `reranker`.
    """
    folder = folder / f"{size}-{str(dtype).removeprefix('torch.')}"
    for seed, name in enumerate(("embedding", "reranker")):
        target = folder / name
        if (target / "model.safetensors").exists():
            continue
        with _golden_checkpoint_of_size(size):
            checkpoint.write(target, seed=seed, tied=True, embedding=name == "embedding")
        weights = dict(draw_weights(target, seed, dtype, device))
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return folder


@contextmanager
def _golden_checkpoint_of_size(size: str) -> Iterator[None]:
    """Make `tests.golden.checkpoint` write the configuration of another size, and no weights."""
    configs = {tied: model_config(size, tied) for tied in (True, False)}
    with (
        mock.patch.object(checkpoint, "config", configs.__getitem__),
        mock.patch.object(checkpoint, "parameter_shapes", return_value={}),
    ):
        yield


def draw_weights(folder: Path, seed: int, dtype: torch.dtype, device: str) -> Iterator[tuple[str, Tensor]]:
    """Draw weights that keep activations of order one through the depth of the model.

    Args:
        folder: A checkpoint folder with its `config.json`.
        seed: Seed of the random numbers.
        dtype: The dtype of the result.
        device: The device on which they are drawn.

    Yields:
        The published name and the values of each parameter, on the CPU.
    """
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
            # The token embedding is also the output head: larger values would make all scores 0 or 1.
            values = values / math.sqrt(shape[1])
        else:
            values = values * (1.5 / math.sqrt(math.prod(shape[1:])))
        yield f"model.{name}", values.to(dtype).cpu()
