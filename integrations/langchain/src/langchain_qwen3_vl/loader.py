"""Folders to LangChain's documents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

from langchain_qwen3_vl.content import to_langchain
from qwen3vl.adapters.loader import LoaderAdapter
from qwen3vl.documents import LoadFailure

if TYPE_CHECKING:
    from qwen3vl import Loader


class Qwen3VLLoader(BaseLoader):
    """Pictures, PDF pages, clips (cut into parts) and texts (cut into passages), from folders, globs and files.

    paths: what to load; folders with all below them.
    loader: a `qwen3vl.Loader` with other lengths of parts and passages, or with the text of pages fused.
    on_error: what a file that cannot be loaded does: "warn" logs it, notes it in `failures` and goes on, "raise"
    raises `qwen3vl.InputError`.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        loader: Loader | None = None,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        self.paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        self._loading = LoaderAdapter(loader, on_error)

    @property
    def failures(self) -> list[LoadFailure]:
        """What the last `load` could not load."""
        return self._loading.failures

    @property
    def skipped(self) -> list[str]:
        """Files of types that nothing here loads, as the last `load` found them."""
        return self._loading.skipped

    def lazy_load(self) -> Iterator[Document]:
        """One document at a time; nothing here grows with the folder but the lists of failures and skipped files."""
        return map(to_langchain, self._loading.documents(self.paths))
