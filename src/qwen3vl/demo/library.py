"""The demo's library: drawn scenes in several image formats, a PDF of slides, videos and notes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import av
import numpy as np
import pypdfium2 as pdfium
from PIL import Image

from qwen3vl.demo.scenes import SIZE, Clip, Scene, random_clip, random_scene

NUM_IMAGES, NUM_SLIDES, NUM_CLIPS, NUM_NOTES = 160, 12, 24, 24
IMAGE_SUFFIXES = (".png", ".jpg", ".webp", ".bmp", ".gif")
CLIP_FPS, CLIP_SECONDS = 8, 4
CLIP_CODEC = "libx264" if "libx264" in av.codecs_available else "mpeg4"
"""H.264, which browsers play; MPEG-4 part 2 where PyAV was built without it."""
SLIDE_POINTS = 288
"""Width and height of a slide, in points of 1/72 inch."""
SLIDES_FILE, NOTES_FILE = "slides.pdf", "notes.md"

Drawn = TypeVar("Drawn", Scene, Clip)


@dataclass(frozen=True, slots=True)
class Library:
    """A written library, and what its files show.

    Attributes:
        folder: The folder with all files.
        images: Scenes by the path of the image file.
        pages: Scenes by the reference of the PDF page, `FILE#page=N`.
        clips: Drawn videos by the path of the video file.
        notes: Scenes by the text of the note.
    """

    folder: Path
    images: dict[str, Scene]
    pages: dict[str, Scene]
    clips: dict[str, Clip]
    notes: dict[str, Scene]


def write_library(folder: Path, seed: int = 2026) -> Library:
    """Draw and write a library in which no scene appears twice.

    Args:
        folder: Where the files are written; created if missing.
        seed: Seed of everything drawn. Equal seeds give equal files.

    Returns:
        What the files show.
    """
    random = Random(seed)
    scenes = _distinct(random_scene, random, NUM_IMAGES + NUM_SLIDES + NUM_NOTES)
    clips = _distinct(random_clip, random, NUM_CLIPS)
    for name in ("scenes", "clips"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images = {}
    for number, scene in enumerate(scenes[:NUM_IMAGES]):
        path = folder / "scenes" / f"scene-{number:03d}{IMAGE_SUFFIXES[number % len(IMAGE_SUFFIXES)]}"
        options: dict[str, Any] = {"quality": 95} if path.suffix in (".jpg", ".webp") else {}
        scene.draw(random).save(path, **options)
        images[str(path)] = scene
    slides = scenes[NUM_IMAGES : NUM_IMAGES + NUM_SLIDES]
    write_slides(folder / SLIDES_FILE, slides, random)
    videos = {}
    for number, clip in enumerate(clips):
        path = folder / "clips" / f"clip-{number:02d}.mp4"
        write_clip(path, clip, random)
        videos[str(path)] = clip
    notes = scenes[NUM_IMAGES + NUM_SLIDES :]
    sections = "\n\n".join(f"## Note {number}\n\n{scene.caption()}" for number, scene in enumerate(notes, start=1))
    (folder / NOTES_FILE).write_text(f"# Notes\n\n{sections}\n", encoding="utf-8")
    return Library(
        folder,
        images,
        {f"{folder / SLIDES_FILE}#page={number}": scene for number, scene in enumerate(slides, start=1)},
        videos,
        {scene.caption(): scene for scene in notes},
    )


def _distinct(draw: Callable[[Random], Drawn], random: Random, count: int) -> list[Drawn]:
    """Return `count` scenes or clips that differ in what they show."""
    by_key: dict[object, Drawn] = {}
    while len(by_key) < count:
        drawn = draw(random)
        by_key.setdefault(drawn.key, drawn)
    return list(by_key.values())


def write_clip(path: Path, clip: Clip, random: Random) -> None:
    """Write a clip as an MP4 file of `CLIP_SECONDS` seconds at `CLIP_FPS` frames per second.

    Args:
        path: The file to write.
        clip: What the video shows.
        random: Moves and sizes the shapes a little.
    """
    num_frames = CLIP_FPS * CLIP_SECONDS
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(CLIP_CODEC, rate=CLIP_FPS)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 1_500_000
        stream.thread_count = 1  # equal bytes on every machine
        for frame in clip.frames(random, [index / (num_frames - 1) for index in range(num_frames)]):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_slides(path: Path, scenes: Sequence[Scene], random: Random) -> None:
    """Write a PDF with one scene per page, over an invisible text layer with its caption, as scanned pages have it.

    Args:
        path: The file to write.
        scenes: What the pages show.
        random: Moves and sizes the shapes a little.
    """
    document = pdfium.PdfDocument.new()
    for scene in scenes:
        page = document.new_page(SLIDE_POINTS, SLIDE_POINTS)
        page_image = pdfium.PdfImage.new(document)
        jpeg = BytesIO()
        scene.draw(random).resize((SLIDE_POINTS, SLIDE_POINTS), Image.Resampling.LANCZOS).save(jpeg, "JPEG", quality=95)
        jpeg.seek(0)
        page_image.load_jpeg(jpeg, inline=True)
        page_image.set_matrix(pdfium.PdfMatrix().scale(SLIDE_POINTS, SLIDE_POINTS))
        page.insert_obj(page_image)
        _insert_text(document, page, scene.caption())
        page.gen_content()
    document.save(str(path))
    document.close()


def _insert_text(document: Any, page: Any, text: str) -> None:
    """Insert a line of invisible text. pypdfium2 has no helper for it, so this calls PDFium's own functions."""
    raw = pdfium.raw
    handle = raw.FPDFPageObj_NewTextObj(document.raw, b"Helvetica", 5.0)
    encoded = (text + "\0").encode("utf-16-le")
    buffer = ctypes.create_string_buffer(encoded, len(encoded))
    raw.FPDFText_SetText(handle, ctypes.cast(buffer, raw.FPDF_WIDESTRING))
    raw.FPDFTextObj_SetTextRenderMode(handle, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
    raw.FPDFPageObj_Transform(handle, 1, 0, 0, 1, 8, 8)
    raw.FPDFPage_InsertObject(page.raw, handle)
