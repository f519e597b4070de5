"""Pictures, PDF pages, clips and texts as nodes that keep their media."""

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
        self._loading = LoaderAdapter(loader, on_error)
        self.image_nodes = image_nodes

    @property
    def failures(self) -> list[LoadFailure]:
        """What the last load could not load."""
        return self._loading.failures

    @property
    def skipped(self) -> list[str]:
        """Files of types that nothing here loads, as the last load found them."""
        return self._loading.skipped

    def lazy_load_data(  # type: ignore[override]
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        extra_info: dict[str, Any] | None = None,
        **_: Any,
    ) -> Iterator[TextNode]:
        """One node at a time, references to media in the metadata, and `extra_info` beside them."""
        for document in self._loading.documents(paths):
            if extra_info:
                document = replace(document, metadata={**document.metadata, **extra_info})
            yield node_of_document(document, image_nodes=self.image_nodes)

    def load_data(  # type: ignore[override]
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        extra_info: dict[str, Any] | None = None,
        **_: Any,
    ) -> list[TextNode]:
        """All nodes."""
        return list(self.lazy_load_data(paths, extra_info))
