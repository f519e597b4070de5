"""A document loader for folders of images, PDF files, videos and texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

from langchain_qwen3_vl.documents import to_langchain
from qwen3vl.adapters.loader import LoaderAdapter
from qwen3vl.documents import LoadFailure

if TYPE_CHECKING:
    from qwen3vl import Loader


class Qwen3VLLoader(BaseLoader):
    """Loads images, PDF pages, videos (cut into parts) and texts (cut into passages) from folders, globs and files.

    Args:
        paths: What to load; folders are loaded with everything below them.
        loader: A `qwen3vl.Loader` with other settings, such as the length of video parts and passages; None is one
            with its defaults.
        on_error: What happens if a file cannot be loaded: `"warn"` logs a warning, adds it to `failures` and
            continues; `"raise"` raises `qwen3vl.InputError`.

    Attributes:
        paths: The paths, as a list.

    Raises:
        ValueError: `on_error` has another value.

    Example:
        ```python
        from pathlib import Path

        from langchain_qwen3_vl import Qwen3VLLoader
        from PIL import Image

        Path("photos").mkdir(exist_ok=True)
        Image.new("RGB", (96, 96), "red").save("photos/red.png")
        loader = Qwen3VLLoader("photos")
        for document in loader.lazy_load():
            print(document.metadata["kind"], document.metadata["image"])
        print(loader.failures, loader.skipped)
        ```
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        loader: Loader | None = None,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        self.paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        self._adapter = LoaderAdapter(loader, on_error)

    @property
    def failures(self) -> list[LoadFailure]:
        """What the last load could not load. Complete when `lazy_load` is exhausted."""
        return self._adapter.failures

    @property
    def skipped(self) -> list[str]:
        """Files that the last load skipped because no loader handles their type.

        Complete when `lazy_load` is exhausted.
        """
        return self._adapter.skipped

    def lazy_load(self) -> Iterator[Document]:
        """Load documents one at a time.

        Memory does not grow with the folder, except for the lists of failures and skipped files.

        Returns:
            The documents, with media references in their metadata.

        Raises:
            InputError: A file cannot be loaded, or a path matches nothing, and `on_error` is `"raise"`.
        """
        return map(to_langchain, self._adapter.documents(self.paths))
