"""A small folder with every kind of file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from qwen3vl.demo.library import write_clip, write_slides
from qwen3vl.demo.scenes import Clip, Scene, Thing, random_scene

STAR = Scene((Thing("red", "star", 0), Thing("blue", "ring", 8)))
"""The image `star.png`."""
MOVER = Clip("green", "circle", 0, 1)
"""The video `mover.mp4`."""
SLIDE = Scene((Thing("yellow", "cross", 4),))
"""The second page of `slides.pdf`."""
NUM_RANDOM_IMAGES = 30


def write(folder: Path) -> Path:
    """Write 31 images, two videos, a PDF of two pages, a Markdown file with two passages, a corrupt image and a table.

    The table is of a type that is not loaded.
    """
    for name, content in _files().items():
        (folder / name).write_bytes(content)
    return folder


@cache
def _files() -> dict[str, bytes]:
    """The files by name, drawn once in each process."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        _draw(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _draw(folder: Path) -> None:
    random = Random(1)
    for number in range(NUM_RANDOM_IMAGES):
        random_scene(random).draw(random).save(folder / f"{number}.{('png', 'jpg', 'webp')[number % 3]}")
    STAR.draw(random).save(folder / "star.png")
    write_clip(folder / "mover.mp4", MOVER, random)
    write_clip(folder / "other.mp4", Clip("pink", "square", 2, 0), random)
    write_slides(folder / "slides.pdf", [random_scene(random), SLIDE], random)
    (folder / "notes.md").write_text(
        "# Notes\n\na purple triangle on the right\n\n## More\n\na cyan square on the left\n"
    )
    (folder / "corrupt [x].png").write_bytes((folder / "star.png").read_bytes()[:60])
    (folder / "table.csv").write_text("a,b\n")
