"""An image that tells who copied it."""

from __future__ import annotations

import threading

from PIL import Image


class NotedImage(Image.Image):
    """An image that notes which threads copy it."""

    def __init__(self, image: Image.Image) -> None:
        super().__init__()
        self.im, self._mode, self._size = image.im, image.mode, image.size
        self.threads: list[str] = []

    def copy(self) -> Image.Image:
        self.threads.append(threading.current_thread().name)
        return super().copy()
