"""The Qwen3-VL model itself, in plain torch: nothing here knows of prompts, files or frameworks."""

from qwen3vl.model.config import ModelConfig, TextConfig, VisionConfig, read_config
from qwen3vl.model.layout import Layout, Link
from qwen3vl.model.model import Qwen3VL
from qwen3vl.model.vision import Grid, VisionFeatures

__all__ = [
    "Grid",
    "Layout",
    "Link",
    "ModelConfig",
    "Qwen3VL",
    "TextConfig",
    "VisionConfig",
    "VisionFeatures",
    "read_config",
]
