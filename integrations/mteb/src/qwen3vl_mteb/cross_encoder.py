"""`Qwen3VLCrossEncoder`: a `Reranker` as mteb's `CrossEncoderProtocol`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Unpack

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.types import PromptType
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qwen3vl.errors import BatchError, InputError, ItemError
from qwen3vl.inputs import Input
from qwen3vl.reranker import Reranker
from qwen3vl.settings import BackendArguments, ModelName
from qwen3vl_mteb.inputs import read_rows, row_key, to_input
from qwen3vl_mteb.instructions import find_instruction
from qwen3vl_mteb.meta import measured_dtype, model_meta

_WINDOW_PAIRS, _MAX_WINDOW_PAIRS = 128, 256
"""Pairs that are read ahead, with their images, and scored at once: the first many, and more of the last query."""
_THREADS = 8
"""Queries whose documents are scored at once, so that those of short ones fill common batches."""
Row = dict[str, Any]
Pair = tuple[str, Row, Row]
"""The query's key, the query and the document."""


class Qwen3VLCrossEncoder:
    """Scores pairs of texts, images, videos and mixtures of them for mteb.

    mteb passes pairs one by one. Those with the same query are scored in one call, so that the query's part of the
    prompt is computed once. The instruction is that of `Qwen3VLEncoder` for queries; the model's own if neither the
    official evaluation nor mteb has one for the task.

    Args:
        model: As for `Reranker`: a hub id, a folder, `"tiny"`, or URLs of servers; or a `Reranker`, with no further
            settings.
        instruction: The model's instruction; None is that of the official script.
        instructions: Instructions of tasks, by their name or type.
        name: The model's name in results, as owner and name; None is its hub id, or made of the folder's name.
        **settings: As for `Reranker`.

    Attributes:
        reranker: The reranker.
        instructions: Instructions of tasks.
        mteb_model_meta: What is known of the model, and the settings that are measured.

    Raises:
        TypeError: There are settings beside a `Reranker`.

    Example:
        ```python
        task = mteb.get_task("Vidore3HrQwen3VLEmbedding2BReranking.v2")
        results = mteb.evaluate(Qwen3VLCrossEncoder("Qwen/Qwen3-VL-Reranker-2B"), task)
        ```
    """

    def __init__(
        self,
        model: ModelName | Reranker = "Qwen/Qwen3-VL-Reranker-2B",
        *,
        instruction: str | None = None,
        instructions: Mapping[str, str] | None = None,
        name: str | None = None,
        **settings: Unpack[BackendArguments],
    ) -> None:
        if isinstance(model, Reranker):
            if settings or instruction is not None:
                raise TypeError("a Reranker has its settings already: leave the others out, or pass its model")
            self.reranker = model
        else:
            self.reranker = Reranker(model, instruction=instruction, **settings)
        self.instructions = dict(instructions or {})
        measured = {"dtype": measured_dtype(self.reranker), "instructions": self.instructions or None}
        self.mteb_model_meta: ModelMeta = model_meta(
            self.reranker.recipe, "cross-encoder", loader=type(self), name=name, settings=measured
        )

    def predict(
        self,
        inputs1: Any,
        inputs2: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,  # noqa: ARG002 (the protocol's)
        hf_subset: str,  # noqa: ARG002 (the protocol's)
        prompt_type: PromptType | None = None,  # noqa: ARG002 (the protocol's)
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Score pairs of rows of two dataloaders.

        Args:
            inputs1: A `DataLoader` of `BatchedInput`: the queries, each as often as it has documents.
            inputs2: A `DataLoader` of `BatchedInput`: the document of each query.
            task_metadata: The task.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Not used.
            **kwargs: `show_progress_bar`; `batch_size` is the dataloaders'.

        Returns:
            Probability of "yes" for each pair, (n,) float32 between 0 and 1, in the order of the pairs.

        Raises:
            BatchError: Pairs cannot be scored. It has the scores of the others.
        """
        instruction = find_instruction(task_metadata, PromptType.query, self.instructions)
        progress = tqdm(unit="pair", disable=not kwargs.get("show_progress_bar", False))
        scores: list[float] = []
        errors: list[ItemError] = []
        with progress, ThreadPoolExecutor(_THREADS, thread_name_prefix="qwen3vl-mteb") as pool:
            for window in _windows(read_rows(inputs1), read_rows(inputs2)):
                values, failures = self._score(window, instruction, pool)
                errors.extend(failure.at(len(scores) + failure.index) for failure in failures)
                scores.extend(values)
                progress.update(len(window))
        if errors:
            raise BatchError(errors, np.array(scores, dtype=np.float32))
        return np.array(scores, dtype=np.float32)

    def _score(
        self, window: Sequence[Pair], instruction: str | None, pool: ThreadPoolExecutor
    ) -> tuple[list[float], list[ItemError]]:
        """Return the scores of some pairs in their order, NaN for those that fail, and the failures by index."""
        groups: dict[str, list[int]] = {}
        for index, (key, _, _) in enumerate(window):
            groups.setdefault(key, []).append(index)
        calls = [
            (to_input(window[indices[0]][1]), [to_input(window[index][2]) for index in indices])
            for indices in groups.values()
        ]
        scores = [float("nan")] * len(window)
        errors: list[ItemError] = []
        results = pool.map(partial(self._score_group, instruction=instruction), calls)
        for indices, (values, failures) in zip(groups.values(), results, strict=True):
            for index, value in zip(indices, values, strict=True):
                scores[index] = value
            errors.extend(failure.at(indices[failure.index]) for failure in failures)
        return scores, sorted(errors, key=lambda error: error.index)

    def _score_group(
        self, call: tuple[Input, list[Input]], *, instruction: str | None
    ) -> tuple[list[float], Sequence[ItemError]]:
        """Return the scores of a query's documents, and the failures by their index among them."""
        query, documents = call
        try:
            batch = self.reranker.score(query, documents, instruction=instruction, on_error="collect")
        except InputError as error:
            failures = [ItemError(index, error.source or "its query", str(error)) for index in range(len(documents))]
            return [float("nan")] * len(documents), failures
        return batch.values.tolist(), batch.errors


def _windows(queries: Iterator[Row], documents: Iterator[Row]) -> Iterator[list[Pair]]:
    """Yield the pairs in windows that end where another query begins, so that its documents stay together."""
    window: list[Pair] = []
    for query, document in zip(queries, documents, strict=True):
        key = row_key(query)
        is_full = len(window) >= _WINDOW_PAIRS and key != window[-1][0]
        if is_full or len(window) >= _MAX_WINDOW_PAIRS:
            yield window
            window = []
        window.append((key, query, document))
    if window:
        yield window
