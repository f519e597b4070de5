"""Pictures, PDF pages, clips and texts as nodes that keep their media."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import TextNode
from llama_index.embeddings.qwen3_vl.nodes import node_of_document

from qwen3vl.documents import LoadFailure
from qwen3vl.errors import InputError

if TYPE_CHECKING:
    from qwen3vl import Loader

log = logging.getLogger(__name__)


class Qwen3VLReader(BaseReader):
    """Pictures, PDF pages, clips (cut into parts) and texts (cut into passages), from folders, globs and files.

    loader: a `qwen3vl.Loader` with other lengths of parts and passages, or with the text of pages fused.
    on_error: what a file that cannot be loaded does: "warn" logs it, notes it in `failures` and goes on, "raise"
    raises `qwen3vl.InputError`.
    image_nodes: pictures as `ImageNode`s, see `node_of_document`.
    """

    def __init__(
        self,
        loader: Loader | None = None,
        *,
        on_error: Literal["warn", "raise"] = "warn",
        image_nodes: bool = False,
    ) -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error is {on_error!r}; it may be 'warn' or 'raise'")
        self.loader = loader
        self.on_error = on_error
        self.image_nodes = image_nodes
        self.failures: list[LoadFailure] = []
        """What the last load could not load."""
        self.skipped: list[str] = []
        """Files of types that nothing here loads, as the last load found them."""

    def lazy_load_data(  # type: ignore[override]
        self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **_: Any
    ) -> Iterator[TextNode]:
        """One node at a time, references to media in the metadata."""
        from qwen3vl.loaders import Loader, Skipped

        self.failures, self.skipped = [], []
        for found in (self.loader or Loader()).load(paths):
            if isinstance(found, Skipped):
                self.skipped.append(found.source)
            elif isinstance(found, LoadFailure):
                if self.on_error == "raise":
                    raise InputError(f"{found.source}: {found.reason}")
                log.warning("not loaded: %s: %s", found.source, found.reason)
                self.failures.append(found)
            else:
                yield node_of_document(found, image_nodes=self.image_nodes)

    def load_data(  # type: ignore[override]
        self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **_: Any
    ) -> list[TextNode]:
        """All nodes."""
        return list(self.lazy_load_data(paths))
