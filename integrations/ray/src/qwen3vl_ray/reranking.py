"""`Rerank` and `rerank`: scores of queries and documents in the rows of a dataset."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
from ray.data import Dataset

from qwen3vl.errors import InputError
from qwen3vl.reranker import Reranker
from qwen3vl.settings import BackendArguments, ModelName
from qwen3vl_ray.downloads import BatchDownloads, Downloads
from qwen3vl_ray.pools import BATCH_SIZE, map_on_models
from qwen3vl_ray.rows import ERROR, RECIPE, check_table, errors_of, input_of, rows_of, set_column

SCORES = "scores"
"""Column: a list of the documents' scores."""


class Rerank:
    """Adds scores to batches of rows; a callable class for `Dataset.map_batches` with `batch_format="pyarrow"`.

    A row has a `query` and a list of `documents`; each is a text or a struct of `text`, `image` and `video`. The
    columns that are added are `scores` (a list of float32, null for a document that failed), `recipe` (JSON) and
    `error` (null, or why the row, or some of its documents, have no score). Rows that have an error already keep it.

    Args:
        model: As for `Reranker`. Each worker has a model of its own.
        instruction: As for `Reranker`.
        **settings: As for `Reranker`.
    """

    def __init__(
        self,
        model: ModelName = "Qwen/Qwen3-VL-Reranker-2B",
        *,
        instruction: str | None = None,
        **settings: Unpack[BackendArguments],
    ) -> None:
        self.reranker = Reranker(model, instruction=instruction, **settings)
        self._downloads = Downloads(self.reranker.policy)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score the documents of each row of a batch.

        Args:
            batch: The rows.

        Returns:
            The rows, in their order, with the columns that are added.

        Raises:
            TypeError: The batch is no Arrow table, or `documents` is no column of lists.
        """
        table = check_table(batch, "Rerank")
        if "documents" not in table.column_names or not _is_list(table.schema.field("documents").type):
            raise TypeError("Rerank takes rows with a list of documents each: the column 'documents' is none")
        with self._downloads.batch() as downloads:
            rows = rows_of(table, ("query", "documents"))
            values = (value for row in rows for value in (row.get("query"), *_documents(row)))
            downloads.fetch_all(input_of(value) for value in values if isinstance(value, Mapping))
            rows = [_localize(row, downloads) for row in rows]
            results = asyncio.run(self._score_rows(rows, errors_of(table)))
        scores, errors = [scores for scores, _ in results], [error for _, error in results]
        recipe = json.dumps(self.reranker.recipe.to_dict(), sort_keys=True)
        recipes = [None if row_scores is None else recipe for row_scores in scores]
        table = set_column(table, SCORES, pa.array(scores, pa.list_(pa.float32())))
        table = set_column(table, RECIPE, pa.array(recipes, pa.string()))
        return set_column(table, ERROR, pa.array(errors, pa.string()))

    async def _score_rows(
        self, rows: list[dict[str, Any]], errors: list[str | None]
    ) -> list[tuple[list[float | None] | None, str | None]]:
        """Score all rows at once, so that their prompts share batches."""
        return await asyncio.gather(*map(self._score_row, rows, errors))

    async def _score_row(self, row: dict[str, Any], error: str | None) -> tuple[list[float | None] | None, str | None]:
        """Return the scores of a row's documents, and what failed."""
        if error is not None:
            return None, error
        try:
            result = await self.reranker.ascore(row["query"], row["documents"], on_error="collect")
        except InputError as query_error:
            return None, str(query_error)
        scores = [None if np.isnan(score) else float(score) for score in result.values]
        failed = "; ".join(f"document {failure.index}: {failure.reason}" for failure in result.errors)
        return scores, failed or None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_null(kind))


def _localize(row: dict[str, Any], downloads: BatchDownloads) -> dict[str, Any]:
    """Return the query and the documents of a row as inputs, with files of object stores downloaded."""
    documents = [_input(document, downloads) for document in _documents(row)]
    return {"query": _input(row.get("query"), downloads), "documents": documents}


def _documents(row: Mapping[str, Any]) -> list[Any]:
    documents = row.get("documents")
    return documents if isinstance(documents, list) else []


def _input(value: Any, downloads: BatchDownloads) -> Any:
    return downloads.localize(input_of(value)) if isinstance(value, Mapping) else "" if value is None else value


def rerank(
    dataset: Dataset,
    *,
    model: ModelName = "Qwen/Qwen3-VL-Reranker-2B",
    num_gpus: float = 1,
    min_workers: int = 1,
    max_workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    **settings: Any,
) -> Dataset:
    """Score the documents of the rows of a dataset, on workers with a model each: for judging, or for hard negatives.

    Args:
        dataset: Rows as `Rerank` takes them.
        model: As for `Rerank`.
        num_gpus: As for `embed`.
        min_workers: As for `embed`.
        max_workers: As for `embed`.
        batch_size: As for `embed`.
        **settings: Other arguments of `Rerank`.

    Returns:
        The dataset with the columns `scores`, `recipe` and `error`. Nothing is computed yet.
    """
    return map_on_models(
        dataset,
        Rerank,
        {"model": model, **settings},
        num_gpus=num_gpus,
        min_workers=min_workers,
        max_workers=max_workers,
        batch_size=batch_size,
    )
