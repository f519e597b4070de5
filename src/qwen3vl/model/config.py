"""The architecture of a model, read from a checkpoint's `config.json`. Fields are named as in transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3vl.errors import ModelError


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower.

    Attributes:
        depth: Number of blocks.
        hidden_size: Size of a patch's hidden state.
        intermediate_size: Size of the hidden layer of a block's MLP.
        num_heads: Number of attention heads.
        out_hidden_size: Size of an output token, the language model's `hidden_size`.
        in_channels: Number of colour channels.
        patch_size: Side of a patch, in pixels.
        temporal_patch_size: Number of frames that a patch spans.
        spatial_merge_size: Number of patches along each side of the square that becomes one output token.
        num_position_embeddings: Number of entries of the learned position table, a square.
        deepstack_visual_indexes: The blocks whose output is also added to the first layers of the language model
            (DeepStack, Meng et al. 2024, arXiv 2406.04334).
    """

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    num_position_embeddings: int
    deepstack_visual_indexes: tuple[int, ...]

    @property
    def patch_dim(self) -> int:
        """Number of values of a flattened patch: channels x frames x height x width."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The language model.

    Attributes:
        vocab_size: Number of token ids.
        hidden_size: Size of a token's hidden state.
        intermediate_size: Size of the hidden layer of a layer's MLP.
        num_layers: Number of layers.
        num_heads: Number of query heads.
        num_kv_heads: Number of key and value heads; it divides `num_heads`.
        head_dim: Size of a head.
        rms_norm_eps: Added to the mean square by RMSNorm.
        rope_theta: Base of the rotary frequencies.
        mrope_section: How many of the head_dim / 2 rotary frequencies belong to time, height and width.
        attention_bias: Whether the attention's linear layers have biases.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    attention_bias: bool


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The whole model.

    Attributes:
        vision: The vision tower.
        text: The language model.
        tie_word_embeddings: Whether the output head is the input embedding, and not stored separately.
    """

    vision: VisionConfig
    text: TextConfig
    tie_word_embeddings: bool


def read_config(path: Path) -> ModelConfig:
    """Read a `config.json` as transformers 4.57 (`rope_scaling`) or 5.x (`rope_parameters`) writes it.

    Args:
        path: The file.

    Returns:
        The model's configuration.

    Raises:
        ModelError: The file is missing, is not a JSON object, lacks a field, or describes another architecture or
            quantised weights.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} is not a model folder: it has no config.json") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} is not a JSON object")
    if raw.get("model_type") != "qwen3_vl":
        raise ModelError(
            f"{path} describes a model of type {raw.get('model_type')!r}; this package runs 'qwen3_vl' "
            "(Qwen3-VL-Embedding and Qwen3-VL-Reranker)"
        )
    try:
        return _parse_config(raw, path)
    except KeyError as error:
        raise ModelError(f"{path} lacks the field {error}, which a Qwen3-VL model has") from error


def _parse_config(raw: dict[str, Any], path: Path) -> ModelConfig:
    text, vision = raw["text_config"], raw["vision_config"]
    quantization = raw.get("quantization_config") or text.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"{path} describes a model that is quantised already ({method or 'quantization_config'}), which this "
            'package does not read: use the original checkpoint with dtype="int8" or dtype="fp8"'
        )
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", "default")
    if rope_type != "default" or not rope.get("mrope_interleaved", True):
        raise ModelError(
            f"{path} asks for rotary embedding of type {rope_type!r} with mrope_interleaved="
            f"{rope.get('mrope_interleaved', True)}; Qwen3-VL-Embedding and Qwen3-VL-Reranker have type 'default', "
            "interleaved"
        )
    for tower, activation in (("text", "silu"), ("vision", "gelu_pytorch_tanh")):
        hidden_act = raw[f"{tower}_config"].get("hidden_act", activation)
        if hidden_act != activation:
            raise ModelError(f"{path}: {tower}_config has the activation {hidden_act!r}; Qwen3-VL has {activation!r}")
    time, height, width = rope.get("mrope_section", (24, 20, 20))
    return ModelConfig(
        vision=VisionConfig(
            depth=vision["depth"],
            hidden_size=vision["hidden_size"],
            intermediate_size=vision["intermediate_size"],
            num_heads=vision["num_heads"],
            out_hidden_size=vision["out_hidden_size"],
            in_channels=vision.get("in_channels", 3),
            patch_size=vision["patch_size"],
            temporal_patch_size=vision["temporal_patch_size"],
            spatial_merge_size=vision["spatial_merge_size"],
            num_position_embeddings=vision["num_position_embeddings"],
            deepstack_visual_indexes=tuple(vision["deepstack_visual_indexes"]),
        ),
        text=TextConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["hidden_size"],
            intermediate_size=text["intermediate_size"],
            num_layers=text["num_hidden_layers"],
            num_heads=text["num_attention_heads"],
            num_kv_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            rms_norm_eps=text["rms_norm_eps"],
            rope_theta=float(rope.get("rope_theta", text.get("rope_theta", 5e6))),
            mrope_section=(time, height, width),
            attention_bias=bool(text.get("attention_bias", False)),
        ),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
    )
