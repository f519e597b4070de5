"""`split_errors`: rows that have failed, apart from the others."""

from __future__ import annotations

from ray.data import Dataset
from ray.data.expressions import col

from qwen3vl_ray.rows import ERROR


def split_errors(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Compute a dataset, and divide its rows.

    The dataset is computed once, and is in the object store afterwards, which spills to disk what is too large.

    Args:
        dataset: A dataset with the column `error`.

    Returns:
        The rows without an error, and those with one.
    """
    computed = dataset.materialize()
    return computed.filter(expr=col(ERROR).is_null()), computed.filter(expr=col(ERROR).is_not_null())
