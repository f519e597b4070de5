"""The Qwen3-VL model in plain torch: vision tower, language model, checkpoints. It uses no prompts or media files."""

from qwen3vl.model.attention.layout import AttentionLayout, PrefixLink
from qwen3vl.model.config import ModelConfig, TextConfig, VisionConfig, read_config
from qwen3vl.model.qwen3_vl import Qwen3VL
from qwen3vl.model.vision import VisionFeatures
from qwen3vl.types import Grid

__all__ = [
    "AttentionLayout",
    "Grid",
    "ModelConfig",
    "PrefixLink",
    "Qwen3VL",
    "TextConfig",
    "VisionConfig",
    "VisionFeatures",
    "read_config",
]
