"""Learning rate and weight average, which the training of both tiny models shares."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

MIN_RATE = 0.02
"""The learning rate at the end, as a fraction of the peak."""
MAX_DECAY = 0.99
"""Decay of the exponential moving average, once enough steps are done."""


def learning_rate_factor(step: int, num_steps: int, *, warmup_steps: int, decay_from: float) -> float:
    """Return the learning rate of a step as a fraction of the peak: linear warm-up, constant, then cosine decay.

    Args:
        step: The step, from 0.
        num_steps: The number of steps.
        warmup_steps: Steps until the peak.
        decay_from: When the decay starts, as a fraction of all steps.

    Returns:
        A factor between 0 and 1.
    """
    progress = step / num_steps
    factor = min(1.0, (step + 1) / warmup_steps)
    if progress > decay_from:
        cosine = 0.5 + 0.5 * math.cos(math.pi * (progress - decay_from) / (1 - decay_from))
        factor *= MIN_RATE + (1 - MIN_RATE) * cosine
    return factor


@torch.no_grad()
def update_average(average: nn.Module, parameters: Iterable[nn.Parameter], step: int) -> None:
    """Update the exponential moving average of a model's weights.

    Args:
        average: The model that holds the average.
        parameters: The parameters of the trained model, in the same order.
        step: The step, from 0. The first steps decay faster, so that the random start is soon forgotten.
    """
    decay = min(MAX_DECAY, (step + 1) / (step + 10))
    for averaged, current in zip(average.parameters(), parameters, strict=True):
        averaged.lerp_(current, 1 - decay)
