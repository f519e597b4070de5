"""An operator and a loader that end their process on some inputs, as a decoder does that crashes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from qwen3vl_ray.rows import ERROR, errors_of, set_column

from qwen3vl import Document, Loader
from qwen3vl.documents import LoadFailure
from qwen3vl.loaders import Skipped


class KillingOperator:
    """Adds the column `error`, or ends its process for the text "die"."""

    def __call__(self, table: pa.Table) -> pa.Table:
        errors = errors_of(table)
        if any(text == "die" and error is None for text, error in zip(table["text"].to_pylist(), errors, strict=True)):
            os.kill(os.getpid(), signal.SIGKILL)
        return set_column(table, ERROR, pa.array(errors, pa.string()))


class KillingLoader(Loader):
    """Loads files, or ends its process for `die.txt`."""

    def load_file(self, path: Path) -> Iterator[Document | LoadFailure | Skipped]:
        if path.name == "die.txt":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load_file(path)
