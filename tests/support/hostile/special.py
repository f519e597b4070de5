"""Paths that are no files, or do not stay as they are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.hostile.png import png


def directory(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


SPECIAL: dict[str, Callable[[Path], None]] = {
    "directory.png": directory,
    "directory.pdf": directory,
    "directory.mp4": directory,
    "pipe.png": pipe,
    "pipe.pdf": pipe,
    "pipe.mp4": pipe,
    "loop.png": link_to_itself,
    "device.jpg": link_to_device,
    "device.mp4": link_to_device,
    "missing.pdf": link_to_nothing,
}
"""What each name becomes."""


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Within the block, a PNG grows by some bytes again and again."""
    path.write_bytes(png(64, 64, 64))
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.001):
            with path.open("ab") as file:
                file.write(b"more")

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
