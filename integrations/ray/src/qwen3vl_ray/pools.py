"""Pools of actors that hold a model each."""

from __future__ import annotations

from typing import Any

from ray.data import ActorPoolStrategy, Dataset

BATCH_SIZE = 64
"""Default number of rows of a batch: what a worker that crashes has to do again."""
_CALLS_PER_WORKER = 2
"""Batches that a worker has at once, so that media of the next one are decoded while the device computes."""


def map_on_models(
    dataset: Dataset,
    operator: type,
    arguments: dict[str, Any],
    *,
    num_gpus: float,
    min_workers: int,
    max_workers: int | None,
    batch_size: int,
) -> Dataset:
    """Apply an operator that holds a model to a dataset, on workers that start when they are needed.

    Args:
        dataset: The dataset.
        operator: A callable class.
        arguments: Keyword arguments of its constructor.
        num_gpus: GPUs of a worker; 0 runs it on a CPU.
        min_workers: Minimum number of workers.
        max_workers: Maximum number of workers; None is as many as the cluster has room for.
        batch_size: Maximum number of rows of a batch.

    Returns:
        The dataset of the results. Nothing is computed yet.
    """
    pool = ActorPoolStrategy(
        min_size=min_workers,
        max_size=max_workers,
        max_tasks_in_flight_per_actor=_CALLS_PER_WORKER,
        max_concurrent_calls_per_actor=_CALLS_PER_WORKER,
        enable_true_multi_threading=True,
    )
    # A task gets one block: in larger ones, a crash would cost more than a batch, and other workers would wait.
    blocks = dataset.repartition(target_num_rows_per_block=batch_size)
    return blocks.map_batches(
        operator,
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=pool,
        fn_constructor_kwargs=arguments,
        num_gpus=num_gpus,
    )
