"""Types that every layer shares; importing them needs nothing but the standard library."""

from __future__ import annotations

Grid = tuple[int, int, int]
"""Size of an image or video in 16-pixel patches: (frame pairs, rows, columns)."""
