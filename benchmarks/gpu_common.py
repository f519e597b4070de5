"""What the rows of `benchmarks.gpu` share: models, pages and measurements."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image, ImageDraw

from benchmarks.inputs import random_words
from qwen3vl import Embedder

PAGE = (1240, 1443)
"""Width and height in pixels of a page of 1,755 tokens: 39 x 45 tokens of 32 x 32 pixels, after resizing."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all rows use.

    Attributes:
        models: Folder of the checkpoints.
        device: The device.
        dtype: Name of the dtype.
        scale: Factor of the numbers of items.
        matmul_rate: Floating point operations per second of a large matrix product.
        pages: Paths of images of pages.
        random: Source of randomness.
        began: When the benchmark began, by `time.perf_counter`.
    """

    models: Path
    device: torch.device
    dtype: str
    scale: float
    matmul_rate: float
    pages: Sequence[str]
    random: Random
    began: float

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def scaled(self, number: int) -> int:
        """Return a number of items times the scale, at least 2.

        Args:
            number: The number at scale 1.

        Returns:
            The scaled number.
        """
        return max(2, round(number * self.scale))

    def embedder(self, **options: Any) -> Embedder:
        """Create an embedder.

        Args:
            **options: Settings other than device and dtype.

        Returns:
            The embedder.
        """
        return Embedder(self.models / "embedding", **{"device": str(self.device), "dtype": self.dtype, **options})

    def texts(self, number: int) -> list[str]:
        """Return random texts of about 256 tokens.

        Args:
            number: Number of texts.

        Returns:
            The texts.
        """
        return [random_words(self.random, 190) for _ in range(number)]


def measure_matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of a product of two square matrices of random values.

    Args:
        device: The device.
        dtype: The dtype of the matrices.

    Returns:
        Floating point operations per second, median of ten products.
    """
    size = 8192 if device.type == "cuda" else 1024
    first, second = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times_s = [time_call(lambda: first @ second, device)[0] for _ in range(15)]
    return float(2 * size**3 / statistics.median(times_s[5:]))  # the first five warm up


def time_call(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Time a call until the device is done.

    Args:
        work: The call.
        device: The device that it uses.

    Returns:
        Seconds, and the call's result.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, result


def draw_pages(folder: Path, count: int) -> list[str]:
    """Write JPEG files that look like pages of text.

    Args:
        folder: Where to write them.
        count: Number of files.

    Returns:
        Their paths.
    """

    def draw(number: int) -> str:
        random = Random(number)
        page = Image.new("RGB", PAGE, "white")
        canvas = ImageDraw.Draw(page)
        for line in range(60):
            canvas.text((80, 60 + 22 * line), random_words(random, 16), fill=(random.randrange(90),) * 3)
        path = folder / f"page-{number}.jpg"
        page.save(path, quality=85)
        return str(path)

    with ThreadPoolExecutor() as threads:
        return list(threads.map(draw, range(count)))
