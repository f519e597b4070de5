"""Random texts and images, which suffice to measure speed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

WORDS = (
    "harbour", "ship", "river", "stone", "bridge", "winter", "market", "lantern", "garden", "window", "letter",
    "copper", "forest", "meadow", "thunder", "saddle", "orchard", "glacier", "violin", "pepper", "canvas", "anchor",
    "feather", "island", "morning", "candle", "shelter", "valley", "pocket", "silver",
)  # fmt: skip


def random_words(random: Random, count: int) -> str:
    """Return a text of random words.

    Args:
        random: Source of randomness.
        count: Number of words.

    Returns:
        The words, with spaces between them.
    """
    return " ".join(random.choice(WORDS) for _ in range(count))


def draw_image(folder: Path, random: Random, width: int, height: int) -> str:
    """Write a PNG file of random blotches.

    Args:
        folder: Where to write it.
        random: Source of randomness.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        The file's path.
    """
    pixels = np.random.default_rng(random.randrange(1 << 30)).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    path = folder / f"{random.randrange(1 << 40)}.png"
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return str(path)
