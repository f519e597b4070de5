"""Pools of actors that hold a model each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import ray
import ray.util.client
from ray.data import ActorPoolStrategy, Dataset

from qwen3vl.errors import Qwen3VLError
from qwen3vl_ray.crashes import CrashGuard

log = logging.getLogger(__name__)
BATCH_SIZE = 64
"""Default number of rows of a batch: what a worker that crashes has to do again."""
MAX_CALLS = 2
"""Batches that a worker has at once, so that media of the next one are decoded while the device computes."""


class GuardedOperator:
    """An operator whose batches become errors if they end workers again and again.

    Args:
        operator: A callable class, which returns a table for a table.
        arguments: Keyword arguments of its constructor.
    """

    def __init__(self, operator: type, arguments: Mapping[str, Any]) -> None:
        self._guard = CrashGuard(MAX_CALLS)
        self._error: Qwen3VLError | None = None
        try:
            self._operator = operator(**arguments)
        except Qwen3VLError as error:  # of errors of constructors, Ray keeps the text only, and starts others
            self._error = error

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Run the operator.

        Args:
            batch: The rows.

        Yields:
            What the operator returns; for each row, if the batch has ended workers before.

        Raises:
            Qwen3VLError: The operator cannot be created.
        """
        if self._error is not None:
            raise self._error
        yield from self._guard.run(batch, lambda rows: iter([self._operator(rows)]))


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

    A worker that crashes is started again, and does its batches again. A row that ends three workers is a row with an
    error.

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

    Raises:
        ValueError: There is an `api_key` among the arguments.
        RuntimeError: This process is connected by Ray Client.
    """
    check_connection()
    check_arguments(arguments, num_gpus)
    pool = ActorPoolStrategy(
        min_size=min_workers,
        max_size=max_workers,
        max_tasks_in_flight_per_actor=MAX_CALLS,
        max_concurrent_calls_per_actor=MAX_CALLS,
        enable_true_multi_threading=True,
    )
    # A task gets one block: in larger ones, a crash would cost more than a batch, and other workers would wait.
    blocks = dataset.repartition(target_num_rows_per_block=batch_size)
    return blocks.map_batches(
        type(operator.__name__, (GuardedOperator,), {}),  # Ray shows this name
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=pool,
        fn_constructor_kwargs={"operator": operator, "arguments": arguments},
        num_gpus=num_gpus,
    )


def check_connection() -> None:
    """Check that Ray Data can run from this process.

    Raises:
        RuntimeError: It is connected by Ray Client, which has no streaming results of tasks.
    """
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        raise RuntimeError(
            "this process is connected by Ray Client (ray://), through which Ray Data does not run: run "
            "`qwen3vl index --ray ray://HOST:PORT`, which moves its work to the cluster, submit the script with `ray "
            'job submit`, or run it on a node with ray.init("auto")'
        )


def check_arguments(arguments: Mapping[str, Any], num_gpus: float) -> None:
    """Check what a worker is to be started with.

    Args:
        arguments: Those of `Embedder` or `Reranker`.
        num_gpus: GPUs of the worker. If the cluster has none, the log says that the run waits for them.

    Raises:
        ValueError: There is an `api_key`.
    """
    if arguments.get("api_key") is not None:
        raise ValueError(
            "api_key would be in what Ray records of a dataset, for all who can read that: set the environment "
            "variable QWEN3VL_API_KEY of the nodes instead"
        )
    warn_without_gpus(num_gpus)


def warn_without_gpus(num_gpus: float) -> None:
    """Say in the log that a run waits for GPUs, if the cluster has none.

    Args:
        num_gpus: GPUs of a worker.
    """
    num_in_cluster = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    if num_in_cluster < num_gpus:
        log.warning(
            "a worker needs num_gpus=%g, and the cluster has %g: the run waits until a node with GPUs joins. "
            "With num_gpus=0, models run on CPUs",
            num_gpus,
            num_in_cluster,
        )
