"""Folders of drawn scenes, the images that the tiny models understand."""

from __future__ import annotations

from pathlib import Path
from random import Random

from qwen3vl.demo.scenes import Scene, random_scene


def draw_scenes(folder: Path, count: int, seed: int = 4) -> list[tuple[Path, Scene]]:
    """Draw distinct scenes as PNG files; returns their paths and scenes."""
    random = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[object, tuple[Path, Scene]] = {}
    while len(drawn) < count:
        scene = random_scene(random)
        if scene.key not in drawn:
            path = folder / f"{len(drawn):04d}.png"
            scene.draw(random).save(path)
            drawn[scene.key] = (path, scene)
    return list(drawn.values())
