"""`EmbedContents`: the vectors of documents, each content once on a worker."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qwen3vl_ray.documents import document_of
from qwen3vl_ray.embedding import Embed
from qwen3vl_ray.rows import ERROR, RECIPE, VECTOR, rows_of, set_column, vector_column
from qwen3vl_ray.tally import read_tallies, take_failures, with_tally

MAX_CONTENTS = 8192
"""Contents whose vectors a worker remembers: 64 MiB for vectors of 2048 values."""


class EmbedContents:
    """Embeds the documents of batches as `Embed` does, and passes tallies on.

    Documents with equal content are embedded once in a batch, and once on a worker as long as it remembers them.

    Args:
        **arguments: Those of `Embed`.
    """

    def __init__(self, **arguments: Any) -> None:
        self._embed = Embed(**arguments)
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Embed the documents of a batch.

        Args:
            table: Rows of documents and tallies.

        Returns:
            Rows of documents with `vector` and `recipe`, and a tally with the failures.
        """
        documents, tally = read_tallies(table)
        keys = [document_of(row).content_key for row in rows_of(documents, documents.column_names)]
        with self._lock:
            vectors = {key: self._vectors[key] for key in keys if key in self._vectors}
        first_rows = {key: index for index, key in reversed(list(enumerate(keys))) if key not in vectors}
        embedded = self._embed(documents.take(pa.array(first_rows.values(), pa.int64())))
        errors = dict(zip(first_rows, embedded[ERROR].to_pylist(), strict=True))
        for key, vector in zip(first_rows, embedded[VECTOR].combine_chunks(), strict=True):
            if errors[key] is None:
                vectors[key] = np.asarray(vector.values)
        with self._lock:
            self._remember(vectors)
        result = set_column(
            documents, VECTOR, vector_column([vectors.get(key) for key in keys], self._embed.embedder.dimension)
        )
        recipes = [self._embed.recipe_json if key in vectors else None for key in keys]
        result = set_column(result, RECIPE, pa.array(recipes, pa.string()))
        result = set_column(result, ERROR, pa.array([errors.get(key) for key in keys], pa.string()))
        result, failures = take_failures(result)
        return with_tally(result, [tally, failures])

    def _remember(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        self._vectors.update(vectors)
        while len(self._vectors) > MAX_CONTENTS:
            self._vectors.popitem(last=False)
