"""Writes the demo's library: scenes in several formats, a PDF of slides, clips and notes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import pypdfium2 as pdfium
from PIL import Image

from qwen3vl.demo.scenes import Clip, Scene, random_clip, random_scene

SCENES, SLIDES, CLIPS, NOTES = 160, 12, 24, 24
SUFFIXES = (".png", ".jpg", ".webp", ".bmp", ".gif")
CLIP_RATE, CLIP_SECONDS = 8, 4
SLIDE_POINTS = 288
SLIDES_FILE, NOTES_FILE = "slides.pdf", "notes.md"


@dataclass(frozen=True, slots=True)
class Library:
    """Where everything is: what each file, page (`FILE#page=N`) or note's text shows."""

    folder: Path
    pictures: dict[str, Scene]
    pages: dict[str, Scene]
    clips: dict[str, Clip]
    notes: dict[str, Scene]


def write_library(folder: Path, seed: int = 2026) -> Library:
    """Draws and writes the library, the same for the same seed; every scene in it is another one."""
    random = Random(seed)
    scenes = _distinct(random_scene, random, SCENES + SLIDES + NOTES)
    clips = _distinct(random_clip, random, CLIPS)
    for name in ("scenes", "clips"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pictures = {}
    for number, scene in enumerate(scenes[:SCENES]):
        path = folder / "scenes" / f"scene-{number:03d}{SUFFIXES[number % len(SUFFIXES)]}"
        scene.draw(random).save(path, **({"quality": 95} if path.suffix in (".jpg", ".webp") else {}))
        pictures[str(path)] = scene
    slides = scenes[SCENES : SCENES + SLIDES]
    write_slides(folder / SLIDES_FILE, slides, random)
    moving = {}
    for number, clip in enumerate(clips):
        path = folder / "clips" / f"clip-{number:02d}.mp4"
        write_clip(path, clip, random)
        moving[str(path)] = clip
    notes = scenes[SCENES + SLIDES :]
    written = "\n\n".join(f"## Note {number}\n\n{scene.caption()}" for number, scene in enumerate(notes, start=1))
    (folder / NOTES_FILE).write_text(f"# Notes\n\n{written}\n", encoding="utf-8")
    return Library(
        folder,
        pictures,
        {f"{folder / SLIDES_FILE}#page={number}": scene for number, scene in enumerate(slides, start=1)},
        moving,
        {scene.caption(): scene for scene in notes},
    )


def _distinct(make: Any, random: Random, count: int) -> list[Any]:
    found: dict[object, Any] = {}
    while len(found) < count:
        made = make(random)
        found.setdefault(made.key, made)
    return list(found.values())


def write_clip(path: Path, clip: Clip, random: Random) -> None:
    """The clip as MP4: CLIP_SECONDS at CLIP_RATE frames a second."""
    count = CLIP_RATE * CLIP_SECONDS
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=CLIP_RATE)
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 1_500_000
        for frame in clip.frames(random, [index / (count - 1) for index in range(count)]):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_slides(path: Path, scenes: Sequence[Scene], random: Random) -> None:
    """A PDF with a scene a page, over an invisible text layer with its caption, as scans have one."""
    document = pdfium.PdfDocument.new()
    for scene in scenes:
        page = document.new_page(SLIDE_POINTS, SLIDE_POINTS)
        picture = pdfium.PdfImage.new(document)
        encoded = BytesIO()
        scene.draw(random).resize((SLIDE_POINTS, SLIDE_POINTS), Image.Resampling.LANCZOS).save(
            encoded, "JPEG", quality=95
        )
        encoded.seek(0)
        picture.load_jpeg(encoded, inline=True)
        picture.set_matrix(pdfium.PdfMatrix().scale(SLIDE_POINTS, SLIDE_POINTS))
        page.insert_obj(picture)
        _insert_text(document, page, scene.caption())
        page.gen_content()
    document.save(str(path))
    document.close()


def _insert_text(document: Any, page: Any, text: str) -> None:
    """One line of invisible text; pypdfium2 has no helper for it, PDFium itself does."""
    raw = pdfium.raw
    handle = raw.FPDFPageObj_NewTextObj(document.raw, b"Helvetica", 5.0)
    encoded = (text + "\0").encode("utf-16-le")
    buffer = ctypes.create_string_buffer(encoded, len(encoded))
    raw.FPDFText_SetText(handle, ctypes.cast(buffer, raw.FPDF_WIDESTRING))
    raw.FPDFTextObj_SetTextRenderMode(handle, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
    raw.FPDFPageObj_Transform(handle, 1, 0, 0, 1, 8, 8)
    raw.FPDFPage_InsertObject(page.raw, handle)
