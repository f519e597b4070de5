"""Folders to LangChain's documents."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

from langchain_qwen3_vl.content import to_langchain
from qwen3vl.documents import LoadFailure
from qwen3vl.errors import InputError

if TYPE_CHECKING:
    from qwen3vl import Loader

log = logging.getLogger(__name__)


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
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error is {on_error!r}; it may be 'warn' or 'raise'")
        self.paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        self.loader = loader
        self.on_error = on_error
        self.failures: list[LoadFailure] = []
        """What the last `load` could not load."""
        self.skipped: list[str] = []
        """Files of types that nothing here loads, as the last `load` found them."""

    def lazy_load(self) -> Iterator[Document]:
        """One document at a time; nothing here grows with the folder but the lists of failures and skipped files."""
        from qwen3vl.loaders import Loader, Skipped

        self.failures, self.skipped = [], []
        for found in (self.loader or Loader()).load(self.paths):
            if isinstance(found, Skipped):
                self.skipped.append(found.source)
            elif isinstance(found, LoadFailure):
                if self.on_error == "raise":
                    raise InputError(f"{found.source}: {found.reason}")
                log.warning("not loaded: %s: %s", found.source, found.reason)
                self.failures.append(found)
            else:
                yield to_langchain(found)
