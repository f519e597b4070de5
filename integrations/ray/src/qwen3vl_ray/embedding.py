"""`Embed` and `embed`: vectors for the rows of a dataset."""

from __future__ import annotations

import json
from typing import Any, Unpack

import pyarrow as pa
from ray.data import Dataset

from qwen3vl.embedder import Embedder
from qwen3vl.errors import RecipeError
from qwen3vl.inputs.parsing import INPUT_KEYS
from qwen3vl.recipe import Recipe
from qwen3vl.settings import BackendArguments, ModelName
from qwen3vl_ray.downloads import Downloads
from qwen3vl_ray.pools import BATCH_SIZE, map_on_models
from qwen3vl_ray.rows import (
    ERROR,
    RECIPE,
    VECTOR,
    check_table,
    errors_of,
    input_of,
    rows_of,
    set_column,
    vector_column,
)


class Embed:
    """Adds vectors to batches of rows; a callable class for `Dataset.map_batches` with `batch_format="pyarrow"`.

    A row is an input as `Embedder.embed` accepts it: its columns `text`, `image`, `video` (references, or tensors of
    uint8 as of `ray.data.read_images`), `instruction`, `fps` and `max_frames`, as far as there are any. The columns
    that are added are `vector` (a fixed-size list of float32), `recipe` (JSON) and `error` (null, or why the row has no
    vector). Rows that have an error already keep it.

    Args:
        model: As for `Embedder`. Each worker has a model of its own.
        dimensions: As for `Embedder`.
        instruction: As for `Embedder`.
        recipe: The recipe that the worker's model has to have; None accepts any.
        **settings: As for `Embedder`.

    Raises:
        RecipeError: The worker's model has another recipe; the message names the fields that differ.

    Example:
        ```python
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=8)
        arguments = {"model": "Qwen/Qwen3-VL-Embedding-2B"}
        dataset.map_batches(
            Embed, fn_constructor_kwargs=arguments, batch_format="pyarrow", batch_size=64, num_gpus=1, compute=pool
        )
        ```
    """

    def __init__(
        self,
        model: ModelName = "Qwen/Qwen3-VL-Embedding-2B",
        *,
        dimensions: int | None = None,
        instruction: str | None = None,
        recipe: Recipe | None = None,
        **settings: Unpack[BackendArguments],
    ) -> None:
        self.embedder = Embedder(model, dimensions=dimensions, instruction=instruction, **settings)
        if recipe is not None and (differences := self.embedder.recipe.describe_differences(recipe)):
            raise RecipeError(
                f"the model of this worker has another recipe than the run: {differences}. Every node needs the same "
                "files of the model; name a commit of the hub as revision, or a folder that all nodes share"
            )
        self._downloads = Downloads(self.embedder.policy)
        self.recipe_json = json.dumps(self.embedder.recipe.to_dict(), sort_keys=True)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Embed the rows of a batch.

        Args:
            batch: The rows.

        Returns:
            The rows, in their order, with the columns that are added.

        Raises:
            TypeError: The batch is no Arrow table.
        """
        table = check_table(batch, "Embed")
        errors = errors_of(table)
        todo = [index for index, error in enumerate(errors) if error is None]
        rows = rows_of(table, (*INPUT_KEYS, "fused"))
        with self._downloads.batch() as downloads:
            inputs = [input_of(rows[index]) for index in todo]
            downloads.fetch_all(inputs)
            result = self.embedder.embed(list(map(downloads.localize, inputs)), on_error="collect")
        vectors = [None] * len(errors)
        for index, vector in zip(todo, result.values, strict=True):
            vectors[index] = vector
        for error in result.errors:
            vectors[todo[error.index]], errors[todo[error.index]] = None, error.reason
        recipes = [self.recipe_json if error is None else None for error in errors]
        table = set_column(table, VECTOR, vector_column(vectors, self.embedder.dimension))
        table = set_column(table, RECIPE, pa.array(recipes, pa.string()))
        return set_column(table, ERROR, pa.array(errors, pa.string()))


def embed(
    dataset: Dataset,
    *,
    model: ModelName = "Qwen/Qwen3-VL-Embedding-2B",
    num_gpus: float = 1,
    min_workers: int = 1,
    max_workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    **settings: Any,
) -> Dataset:
    """Embed the rows of a dataset, on workers with a model each.

    Nothing fails because of a row: it has an `error` then. A worker that crashes is started again, and does its batches
    again.

    Args:
        dataset: Rows as `Embed` takes them.
        model: As for `Embed`.
        num_gpus: GPUs of a worker; 0 runs it on a CPU, or asks servers.
        min_workers: Minimum number of workers.
        max_workers: Maximum number of workers; None is as many as the cluster has room for.
        batch_size: Maximum number of rows that a worker gets at once.
        **settings: Other arguments of `Embed`.

    Returns:
        The dataset with the columns `vector`, `recipe` and `error`. Nothing is computed yet.

    Example:
        ```python
        embed(ray.data.read_parquet("pages"), max_workers=8).write_parquet("vectors")
        ```
    """
    return map_on_models(
        dataset,
        Embed,
        {"model": model, **settings},
        num_gpus=num_gpus,
        min_workers=min_workers,
        max_workers=max_workers,
        batch_size=batch_size,
    )
