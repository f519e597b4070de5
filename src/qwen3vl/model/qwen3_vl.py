"""The whole model: vision tower, language model and, for a reranker, the two rows of the head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.config import ModelConfig
from qwen3vl.model.text import TextModel
from qwen3vl.model.vision import VisionFeatures, VisionModel
from qwen3vl.types import Grid


class Qwen3VL(nn.Module):
    """Parameter names are those of the published checkpoints below `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionModel(config.vision)
        self.language_model = TextModel(config.text)

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.language_model.embed_tokens.weight.device

    def encode_vision(self, patches: Tensor, grids: Sequence[Grid]) -> VisionFeatures:
        """Vision features of pictures and clips; see `VisionModel.forward`."""
        features: VisionFeatures = self.visual(patches.to(self.dtype), grids)
        return features

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        layout: AttentionLayout,
        wanted: Tensor,
        visual: Tensor | None = None,
        features: VisionFeatures | None = None,
    ) -> Tensor:
        """One packed forward.

        `ids` is (tokens,) int64; `positions` (3, tokens); `layout` says how the row is cut; `visual` are the places
        of the vision tokens in the row, in the order of `features`; `wanted` the places whose final hidden
        states are returned: (wanted, hidden), normed.
        """
        hidden = self.language_model.embed_tokens(ids)
        if features is None or visual is None:
            features, visual = VisionFeatures(hidden[:0], ()), ids[:0]
        hidden = hidden.index_copy(0, visual, features.tokens.to(hidden.dtype))
        out: Tensor = self.language_model(hidden, positions, layout, visual, features.deepstack, wanted)
        return out
