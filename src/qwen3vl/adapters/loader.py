"""Documents alone, for those who want a stream of nothing else: what fails and what is skipped goes beside it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import InputError

if TYPE_CHECKING:
    from qwen3vl.loaders.folder import Loader

log = logging.getLogger(__name__)


class LoaderAdapter:
    """What the loaders of adapters have in common.

    on_error: what a file that cannot be loaded does: "warn" logs it, notes it in `failures` and goes on, "raise"
    raises `InputError`.
    """

    def __init__(self, loader: Loader | None, on_error: Literal["warn", "raise"]) -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error is {on_error!r}; it may be 'warn' or 'raise'")
        self.loader = loader
        self.on_error = on_error
        self.failures: list[LoadFailure] = []
        self.skipped: list[str] = []

    def documents(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Iterator[Document]:
        """The documents of files and folders; `failures` and `skipped` are of the last call."""
        from qwen3vl.loaders.folder import Loader, Skipped

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
                yield found
