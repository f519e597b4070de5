"""Checkpoints of the true proportions with random weights: speed needs no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from tests.golden import checkpoint

SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "small": (1024, 14, 8, 512, 12),
    "2B": (2048, 28, 16, 1024, 24),
}
"""Width, layers and heads of the language model, width and blocks of the vision tower: the 2B model's, and half."""


def config(size: str, tied: bool) -> dict[str, Any]:
    """config.json with the proportions of Qwen3-VL-Embedding-2B."""
    hidden, layers, heads, seen, depth = SIZES[size]
    made: dict[str, Any] = checkpoint.config(tied)
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


def write(folder: Path, size: str) -> Path:
    """`embedding` and `reranker` below a folder, made once."""
    for number, name in enumerate(("embedding", "reranker")):
        if (folder / name / "model.safetensors").exists():
            continue
        plain = checkpoint.config

        def sized(tied: bool, plain: Any = plain) -> dict[str, Any]:
            with mock.patch.object(checkpoint, "config", plain):
                return config(size, tied)

        with mock.patch.object(checkpoint, "config", sized):
            checkpoint.write(folder / name, seed=number, tied=True, embedding=name == "embedding")
    return folder
