"""Loading for frameworks whose loaders yield nothing but documents."""

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
    """Yields the documents of a `Loader`, and keeps failures and skipped files in lists beside them.

    Args:
        loader: The loader; None is a `Loader` with its defaults.
        on_error: What happens if a file cannot be loaded: `"warn"` logs a warning, adds it to `failures` and
            continues; `"raise"` raises `InputError`.

    Attributes:
        loader: The loader, or None.
        on_error: `"warn"` or `"raise"`.
        failures: What the last iteration of `documents` could not load.
        skipped: Files that the last iteration of `documents` skipped because no loader handles their type.

    Raises:
        ValueError: `on_error` has another value.
    """

    def __init__(self, loader: Loader | None, on_error: Literal["warn", "raise"]) -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error is {on_error!r}; it must be 'warn' or 'raise'")
        self.loader = loader
        self.on_error = on_error
        self.failures: list[LoadFailure] = []
        self.skipped: list[str] = []

    def documents(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Iterator[Document]:
        """Load documents one at a time.

        `failures` and `skipped` are new lists when the iteration begins, and complete when it ends.

        Args:
            paths: A file, folder or glob, or several of them.

        Yields:
            The documents.

        Raises:
            InputError: A file cannot be loaded, or a path matches nothing, and `on_error` is `"raise"`.
        """
        from qwen3vl.loaders import Loader, Skipped

        # Not the attributes: a later iteration replaces those.
        failures: list[LoadFailure] = []
        skipped: list[str] = []
        self.failures, self.skipped = failures, skipped
        for result in (self.loader or Loader()).load(paths):
            if isinstance(result, Skipped):
                skipped.append(result.source)
            elif isinstance(result, LoadFailure):
                if self.on_error == "raise":
                    raise InputError(f"{result.name}: {result.reason}")
                log.warning("cannot load %s: %s", result.name, result.reason)
                failures.append(result)
            else:
                yield result
