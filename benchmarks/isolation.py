"""What it costs to decode ordinary media in worker processes: 500 images, 200 PDF pages and 20 videos.

    uv run python -m benchmarks.isolation

Both ways are measured in turns, from the file to the pixels that the model sees, on as many threads as an `Embedder`
uses; the table has the medians. `--embed` measures whole calls of `Embedder("tiny").embed` instead.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageFilter

from qwen3vl import Document, Embedder, MediaPolicy
from qwen3vl.inputs import as_item
from qwen3vl.loaders import Loader
from qwen3vl.media.isolation import MAX_PROCESSES
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import read_headers

NUM_IMAGES, NUM_PAGES, NUM_VIDEOS = 500, 200, 20
IMAGE_SIZES = ((640, 480), (1024, 768), (1600, 1200), (3000, 2000))
"""Width and height, from a picture on a web page to a photo."""
FORMATS = (("JPEG", "jpg"), ("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"))
VIDEO_SIZE, VIDEO_SECONDS, FRAME_RATE = (640, 360), 8, 25
LINES_PER_PAGE = 45
ROUNDS = 5


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embed", action="store_true", help="measure whole calls of Embedder('tiny').embed")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the media to use")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        media = write_media(Path(folder), arguments.scale)
        print(f"{cpu_count()} cores\n")
        print("| media | in this process, s | in decoder processes, s | difference |\n| --- | ---: | ---: | ---: |")
        for name, items in media.items():
            runs = {bool(policy.isolated): make_run(policy, embed=arguments.embed) for policy in policies()}
            for run in runs.values():
                run(items[:4])  # starts threads, processes and imports
            seconds: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(arguments.rounds):
                for isolated, run in runs.items():
                    began = time.perf_counter()
                    run(items)
                    seconds[isolated].append(time.perf_counter() - began)
            here, isolated_s = statistics.median(seconds[False]), statistics.median(seconds[True])
            print(f"| {len(items)} {name} | {here:.2f} | {isolated_s:.2f} | {isolated_s / here - 1:+.1%} |", flush=True)


def policies() -> tuple[MediaPolicy, MediaPolicy]:
    """Return the policies that are compared."""
    return MediaPolicy(isolated=False), MediaPolicy(isolated=True)


def make_run(policy: MediaPolicy, *, embed: bool) -> Callable[[Sequence[Any]], object]:
    """Return what is measured: a function of items that reads them all.

    Args:
        policy: How media are decoded.
        embed: Whether they are embedded as well.
    """
    if embed:
        embedder = Embedder("tiny", device="cpu", policy=policy, vision_cache=0)
        return lambda items: embedder.embed(list(items))
    threads = ThreadPoolExecutor(MAX_PROCESSES if policy.isolated else min(8, cpu_count() or 1))
    limits = Limits()

    def load(value: Any) -> None:
        content = read_headers(as_item(value), limits, policy, exif=False)
        for unsized in (*content.images, *content.videos):
            unsized.resolve_size().load()

    return lambda items: list(threads.map(load, items))


def write_media(folder: Path, scale: float) -> dict[str, list[dict[str, str]]]:
    """Write images, a PDF and videos, and return them as items for `Embedder.embed`, by kind.

    Args:
        folder: Where they are written.
        scale: Part of the full number.
    """
    random = np.random.default_rng(13)
    texture = Image.fromarray(random.integers(0, 255, (400, 600, 3), dtype=np.uint8)).filter(
        ImageFilter.GaussianBlur(4)
    )
    images, videos = [], []
    for number in range(round(NUM_IMAGES * scale)):
        pillow_format, suffix = FORMATS[number % len(FORMATS)]
        path = folder / f"{number:03}.{suffix}"
        # Large photos are JPEG files; screenshots and pictures of web pages are smaller.
        sizes = IMAGE_SIZES if pillow_format == "JPEG" else IMAGE_SIZES[:2]
        texture.rotate(number).resize(sizes[number % len(sizes)]).save(path, pillow_format)
        images.append({"image": str(path)})
    for number in range(max(1, round(NUM_VIDEOS * scale))):
        path = folder / f"{number:03}.mp4"
        write_video(path, texture.rotate(number))
        videos.append({"video": str(path)})
    pdf = folder / "report.pdf"
    write_pdf(pdf, round(NUM_PAGES * scale), random)
    pages = [{"image": str(document.image)} for document in Loader().load(pdf) if isinstance(document, Document)]
    return {"images": images, "pages": pages, "videos": videos}


def write_video(path: Path, texture: Image.Image) -> None:
    """Write a video of a moving texture.

    Args:
        path: The file.
        texture: An image larger than half a frame.
    """
    width, height = VIDEO_SIZE
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        background = texture.resize((2 * width, 2 * height))
        for number in range(VIDEO_SECONDS * FRAME_RATE):
            frame = background.crop((number, number, number + width, number + height))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode())


def write_pdf(path: Path, num_pages: int, random: np.random.Generator) -> None:
    """Write pages of text, as of a report.

    Args:
        path: The file.
        num_pages: Number of pages.
        random: Chooses the words.
    """
    objects = ["<</Type/Catalog/Pages 2 0 R>>", ""]
    font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    objects.append(font)
    kids = []
    for _ in range(num_pages):
        words = ["".join(chr(97 + letter) for letter in random.integers(0, 26, 7)) for _ in range(10 * LINES_PER_PAGE)]
        lines = [" ".join(words[10 * line : 10 * line + 10]) for line in range(LINES_PER_PAGE)]
        text = " ".join(f"({line}) Tj T*" for line in lines)
        content = f"BT /F1 11 Tf 15 TL 50 790 Td {text} ET"
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
        kids.append(len(objects) + 1)
        resources = "<</Font<</F1 3 0 R>>>>"
        page = f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources{resources}/Contents {len(objects)} 0 R>>"
        objects.append(page)
    objects[1] = f"<</Type/Pages/Count {num_pages}/Kids[{' '.join(f'{kid} 0 R' for kid in kids)}]>>"
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    size = len(objects) + 1
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF"
    path.write_text(f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}", encoding="ascii")


if __name__ == "__main__":
    main()
