"""`EmbedNew`: documents that a store does not have are embedded and written, each content once on a worker."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qwen3vl.recipe import Recipe
from qwen3vl_ray.documents import documents_table
from qwen3vl_ray.embedding import Embed
from qwen3vl_ray.lookup import find_new
from qwen3vl_ray.rows import ERROR, RECIPE, VECTOR, set_column, vector_column
from qwen3vl_ray.tally import take_failures, with_tally
from qwen3vl_ray.target import Target
from qwen3vl_ray.writing import StoreDatasink

MAX_CONTENTS = 8192
"""Contents whose vectors a worker remembers: 64 MiB for vectors of 2048 values."""


class EmbedNew:
    """Embeds the documents of batches that a store does not have, and writes them.

    A batch is written where it is embedded, before the worker takes another one in its place: if the whole run is
    killed, the batches that a worker has at once are lost, and none that wait for a writer.

    The store is asked here, and in no operator before: Ray divides blocks into batches by the numbers of their rows,
    and computes a block that is lost with its node again. Rows that are left out because they are stored meanwhile
    would shift the others out of the batches that are still to be done.

    Documents with equal content are embedded once in a batch, and once on a worker as long as it remembers them.

    Args:
        target: The collection.
        recipe: The recipe of the collection, which the worker's model has to have.
        for_sync: Whether the tallies have the ids of all documents.
        **arguments: Further ones of `Embed`.
    """

    def __init__(self, target: Target, recipe: Recipe, for_sync: bool, **arguments: Any) -> None:
        self._target = target
        self._recipe = recipe
        self._for_sync = for_sync
        self._embed = Embed(recipe=recipe, **arguments)
        self._sink = StoreDatasink(target, recipe)
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Embed and write the new documents of a batch.

        Args:
            table: Rows of documents, failures and skipped files.

        Returns:
            A row with the `id` of each document that was embedded, and a tally: what was written, and what became of
            the other rows.
        """
        documents, tally = find_new(table, self._target.open(), self._recipe, for_sync=self._for_sync)
        keys = [document.content_key for document in documents]
        with self._lock:
            vectors = {key: self._vectors[key] for key in keys if key in self._vectors}
        firsts = {key: document for key, document in zip(keys, documents, strict=True) if key not in vectors}
        embedded = self._embed(documents_table(firsts.values()))
        errors = dict(zip(firsts, embedded[ERROR].to_pylist(), strict=True))
        for key, vector in zip(firsts, embedded[VECTOR].combine_chunks(), strict=True):
            if errors[key] is None:
                vectors[key] = np.asarray(vector.values)
        with self._lock:
            self._remember(vectors)
        column = vector_column([vectors.get(key) for key in keys], self._embed.embedder.dimension)
        recipes = [self._embed.recipe_json if key in vectors else None for key in keys]
        result = set_column(documents_table(documents), VECTOR, column)
        result = set_column(result, RECIPE, pa.array(recipes, pa.string()))
        result = set_column(result, ERROR, pa.array([errors.get(key) for key in keys], pa.string()))
        written = self._sink.write([result], None)
        return with_tally(take_failures(result)[0].select(["id"]), [tally, written])

    def _remember(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        self._vectors.update(vectors)
        while len(self._vectors) > MAX_CONTENTS:
            self._vectors.popitem(last=False)
