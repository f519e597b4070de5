"""Types that every layer shares. Importing them needs nothing but NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = tuple[int, int, int]
"""Size of an image or video in patches of 16 x 16 pixels: (frame pairs, rows, columns).

This is a row of `image_grid_thw` and `video_grid_thw` in transformers.
"""

Pixels = NDArray[np.uint8]
"""RGB values of an image, (height, width, 3), or of frames, (num_frames, height, width, 3)."""
Size = tuple[int, int]
"""Height and width in pixels."""
