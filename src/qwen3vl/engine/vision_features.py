"""Splitting and joining of vision features along their token axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qwen3vl.model.vision import VisionFeatures


def split_features(features: VisionFeatures, lengths: Sequence[int]) -> list[VisionFeatures]:
    """Split the features of images and videos that were encoded together.

    Args:
        features: Tensors of shape (sum of lengths, hidden_size).
        lengths: Number of vision tokens of each image or video.

    Returns:
        Features of each, as views of the given tensors.
    """
    layers = [torch.split(layer, list(lengths)) for layer in (features.tokens, *features.deepstack)]
    return [VisionFeatures(tokens, tuple(deepstack)) for tokens, *deepstack in zip(*layers, strict=True)]


def concat_features(features: Sequence[VisionFeatures]) -> VisionFeatures:
    """Concatenate features of several images and videos.

    Args:
        features: At least one, all of the same tower.

    Returns:
        Features with tensors of shape (sum of num_tokens, hidden_size).
    """
    layers = zip(*([part.tokens, *part.deepstack] for part in features), strict=True)
    tokens, *deepstack = (torch.cat(layer) for layer in layers)
    return VisionFeatures(tokens, tuple(deepstack))
