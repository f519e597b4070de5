"""The whole model: vision tower and language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.attention.prepare import prepare_attention
from qwen3vl.model.config import ModelConfig
from qwen3vl.model.text import TextModel
from qwen3vl.model.vision import VisionFeatures, VisionModel
from qwen3vl.types import Grid


class Qwen3VL(nn.Module):
    """Qwen3-VL without its output head (Qwen3-VL technical report, arXiv 2511.21631).

    Parameters have the names of the published checkpoints, without the prefix `model.`.

    Args:
        config: The architecture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionModel(config.vision)
        self.language_model = TextModel(config.text)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the activations."""
        return self.language_model.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.language_model.embed_tokens.weight.device

    def encode_vision(self, patches: Tensor, grids: Sequence[Grid]) -> VisionFeatures:
        """Run the vision tower on images and videos; see `VisionModel.forward`.

        Args:
            patches: (num_patches, patch_dim), of all media in turn.
            grids: The grid of each image or video.

        Returns:
            Their features, in the same order.
        """
        features: VisionFeatures = self.visual(patches.to(self.dtype), grids)
        return features

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        layout: AttentionLayout,
        output_indices: Tensor,
        vision_token_indices: Tensor | None = None,
        vision_features: VisionFeatures | None = None,
    ) -> Tensor:
        """Run the language model on one packed row.

        Args:
            input_ids: (num_tokens,) int64.
            position_ids: (3, num_tokens) int64: position in time, height and width.
            layout: The segments of the row and the prefixes they share.
            output_indices: (num_outputs,) int64: the tokens whose final hidden states are returned.
            vision_token_indices: (num_vision_tokens,) int64: the tokens that stand for images and videos.
            vision_features: Their features, in the order of `vision_token_indices`; None, like None for the indices,
                runs without media.

        Returns:
            Normalized final hidden states, (num_outputs, hidden_size), in the model's dtype.
        """
        hidden = self.language_model.embed_tokens(input_ids)
        deepstack: tuple[Tensor, ...] = ()
        if vision_features is not None and vision_token_indices is not None:
            hidden = hidden.index_copy(0, vision_token_indices, vision_features.tokens.to(hidden.dtype))
            deepstack = vision_features.deepstack
        attention = prepare_attention(layout, hidden.device, hidden.dtype, causal=True)
        outputs: Tensor = self.language_model(
            hidden, position_ids, attention, vision_token_indices, deepstack, output_indices
        )
        return outputs
