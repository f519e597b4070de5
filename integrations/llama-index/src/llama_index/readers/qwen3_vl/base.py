"""`Qwen3VLReader`: images, PDF pages, videos and texts as nodes that keep their media."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import TextNode
from llama_index.embeddings.qwen3_vl.nodes import node_of_document

from qwen3vl.adapters.loader import LoaderAdapter
from qwen3vl.documents import LoadFailure

if TYPE_CHECKING:
    from qwen3vl import Loader


class Qwen3VLReader(BaseReader):
    """Reads folders, globs and files: images, PDF pages, parts of videos, and passages of texts become nodes.

    Args:
        loader: A `qwen3vl.Loader` with other lengths of parts and passages, or one that embeds the text of pages
            with their image; None means the default.
        on_error: What happens to a file that cannot be loaded: `"warn"` logs it, adds it to `failures` and goes on;
            `"raise"` raises a `qwen3vl.InputError`.
        image_nodes: Whether images become `ImageNode`s; see `node_of_document`.

    Raises:
        ValueError: `on_error` has another value.

    Example:
        ```python
        from llama_index.readers.qwen3_vl import Qwen3VLReader
        from PIL import Image

        Image.new("RGB", (64, 64), "red").save("red.png")
        (node,) = Qwen3VLReader().load_data("red.png")
        assert node.metadata["image"].endswith("red.png")
        ```
    """

    def __init__(
        self,
        loader: Loader | None = None,
        *,
        on_error: Literal["warn", "raise"] = "warn",
        image_nodes: bool = False,
    ) -> None:
        self._adapter = LoaderAdapter(loader, on_error)
        self.image_nodes = image_nodes

    @property
    def failures(self) -> list[LoadFailure]:
        """The files, and parts of files, that the last load could not load."""
        return self._adapter.failures

    @property
    def skipped(self) -> list[str]:
        """The files of unsupported types that the last load left out."""
        return self._adapter.skipped

    def lazy_load_data(  # type: ignore[override]
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        extra_info: dict[str, Any] | None = None,
        **_: Any,
    ) -> Iterator[TextNode]:
        """Load nodes one at a time, with media references in their metadata.

        Args:
            paths: Folders, globs and files.
            extra_info: Further metadata for all nodes.

        Yields:
            Nodes, in the order of the paths.

        Raises:
            InputError: A file cannot be loaded and `on_error` is `"raise"`.
        """
        for document in self._adapter.documents(paths):
            if extra_info:
                document = replace(document, metadata={**document.metadata, **extra_info})
            yield node_of_document(document, image_nodes=self.image_nodes)

    def load_data(  # type: ignore[override]
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        extra_info: dict[str, Any] | None = None,
        **_: Any,
    ) -> list[TextNode]:
        """Load all nodes.

        Args:
            paths: Folders, globs and files.
            extra_info: Further metadata for all nodes.

        Returns:
            The nodes, in the order of the paths.

        Raises:
            InputError: A file cannot be loaded and `on_error` is `"raise"`.
        """
        return list(self.lazy_load_data(paths, extra_info))
