"""The shape of a Qwen3-VL model, read from a checkpoint's `config.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3vl.errors import ModelError


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower.  `deepstack` lists the blocks whose output also enters the first text layers."""

    depth: int
    hidden: int
    mlp: int
    heads: int
    out: int
    channels: int
    patch: int
    temporal_patch: int
    merge: int
    positions: int
    deepstack: tuple[int, ...]

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch: channels x frames x height x width."""
        return self.channels * self.temporal_patch * self.patch**2


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The language model.  `mrope` splits the rotary frequencies over time, height and width."""

    vocabulary: int
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope_theta: float
    mrope: tuple[int, int, int]
    attention_bias: bool


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Both halves, and whether the output head reuses the input embedding (`tied`)."""

    vision: VisionConfig
    text: TextConfig
    tied: bool


def read_config(path: Path) -> ModelConfig:
    """Reads `config.json` as transformers 4.57 (`rope_scaling`) or 5.x (`rope_parameters`) writes it.

    Raises `ModelError` when the file is missing, is not JSON, or describes another architecture.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} is not a model folder: it has no config.json") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if raw.get("model_type") != "qwen3_vl":
        raise ModelError(
            f"{path} describes a model of type {raw.get('model_type')!r}; this package runs 'qwen3_vl' "
            "(Qwen3-VL-Embedding and Qwen3-VL-Reranker)"
        )
    try:
        return _config(raw)
    except KeyError as error:
        raise ModelError(f"{path} lacks the field {error}") from error


def _config(raw: dict[str, Any]) -> ModelConfig:
    text, vision = raw["text_config"], raw["vision_config"]
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind = rope.get("rope_type", "default")
    if kind != "default" or not rope.get("mrope_interleaved", True):
        raise ModelError(f"rotary positions of type {kind!r} are not those of a Qwen3-VL embedding or reranker model")
    for name, activation in (("text", "silu"), ("vision", "gelu_pytorch_tanh")):
        found = raw[f"{name}_config"].get("hidden_act", activation)
        if found != activation:
            raise ModelError(f"the {name} model's activation is {found!r}; Qwen3-VL has {activation!r}")
    time, height, width = rope.get("mrope_section", (24, 20, 20))
    return ModelConfig(
        vision=VisionConfig(
            depth=vision["depth"],
            hidden=vision["hidden_size"],
            mlp=vision["intermediate_size"],
            heads=vision["num_heads"],
            out=vision["out_hidden_size"],
            channels=vision.get("in_channels", 3),
            patch=vision["patch_size"],
            temporal_patch=vision["temporal_patch_size"],
            merge=vision["spatial_merge_size"],
            positions=vision["num_position_embeddings"],
            deepstack=tuple(vision["deepstack_visual_indexes"]),
        ),
        text=TextConfig(
            vocabulary=text["vocab_size"],
            hidden=text["hidden_size"],
            mlp=text["intermediate_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            norm_eps=text["rms_norm_eps"],
            rope_theta=float(rope.get("rope_theta", text.get("rope_theta", 5e6))),
            mrope=(time, height, width),
            attention_bias=bool(text.get("attention_bias", False)),
        ),
        tied=bool(raw.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
    )
