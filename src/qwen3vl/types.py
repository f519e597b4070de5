"""Types that every layer shares. Importing them needs nothing but the standard library."""

from __future__ import annotations

Grid = tuple[int, int, int]
"""Size of an image or video in patches of 16 x 16 pixels: (frame pairs, rows, columns).

This is a row of `image_grid_thw` and `video_grid_thw` in transformers.
"""
