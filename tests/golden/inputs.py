"""Draws the pictures and clips that the golden cases name, the same bytes of pixels on every machine.

    python inputs.py OUT_DIR

`media(OUT_DIR)` returns {name: path}.  Pictures are drawn with integer NumPy arithmetic and stored losslessly
(PNG; one JPEG and one GIF exercise those decoders), so only a different resize can change what a model sees.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def scene(width: int, height: int, seed: int) -> np.ndarray:
    """An RGB picture of soft gradients with hard-edged boxes: uint8, shape (height, width, 3)."""
    random = np.random.RandomState(seed)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    phases = random.randint(1, 7, size=(3, 2))
    canvas = np.stack(
        [(x * a * 255 // max(width, 1) + y * b * 255 // max(height, 1)) % 256 for a, b in phases], axis=-1
    )
    for _ in range(6):
        left, top = random.randint(0, width), random.randint(0, height)
        right, bottom = (
            left + 1 + random.randint(0, max(width // 2, 1)),
            top + 1 + random.randint(0, max(height // 2, 1)),
        )
        canvas[top:bottom, left:right] = random.randint(0, 256, size=3)
    return canvas.astype(np.uint8)


def media(directory: Path) -> dict[str, Path]:
    """Writes every golden picture and frame below `directory` and returns where each one is."""
    directory.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path] = {}

    def keep(name: str, image: Image.Image, suffix: str = ".png", **options: object) -> None:
        made[name] = directory / f"{name}{suffix}"
        image.save(made[name], **options)

    for name, width, height, seed in [
        ("photo", 640, 360, 1), ("portrait", 480, 800, 2), ("page", 1240, 1754, 3), ("huge", 2600, 1900, 4),
        ("tiny", 20, 12, 5), ("strip", 900, 40, 6), ("square", 512, 512, 7), ("odd", 333, 257, 8),
    ]:  # fmt: skip
        keep(name, Image.fromarray(scene(width, height, seed)))
    alpha = np.dstack([scene(300, 200, 9), (np.indices((200, 300)).sum(0) % 256).astype(np.uint8)])
    keep("translucent", Image.fromarray(alpha, "RGBA"))
    keep("grey", Image.fromarray(scene(200, 300, 10)[..., 0], "L"))
    keep("palette", Image.fromarray(scene(256, 256, 11)).quantize(32))
    keep("photo-jpeg", Image.fromarray(scene(640, 480, 12)), ".jpg", quality=92)
    keep("still-gif", Image.fromarray(scene(160, 120, 13)).quantize(64), ".gif")
    for index in range(12):
        keep(f"frame-{index:02d}", Image.fromarray(np.roll(scene(320, 240, 14), 9 * index, axis=1)))
    return made


if __name__ == "__main__":
    for name, path in media(Path(sys.argv[1])).items():
        print(name, path)
