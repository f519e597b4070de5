"""Loads an image file as one document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qwen3vl.documents import Document


def load_image(path: Path, digest: str) -> Iterator[Document]:
    """Load an image file. The image is not opened: a broken image causes an error when it is embedded.

    Args:
        path: The file.
        digest: Digest of its content.

    Yields:
        One document of kind `"picture"`.
    """
    yield Document(str(path), "picture", digest, image=str(path))
