"""mteb's own check of models: its mock tasks of texts, images and videos."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mteb
import pytest
from mteb.abstasks import AbsTaskRetrieval
from mteb.mocks import ALL_MOCK_TASK_TEST_GRID
from mteb.results import TaskResult
from qwen3vl_mteb import Qwen3VLCrossEncoder, Qwen3VLEncoder, StoreSearch

TASKS = [task for task in ALL_MOCK_TASK_TEST_GRID if set(task.metadata.modalities) <= {"text", "image", "video"}]
RETRIEVAL = {task.metadata.name: task for task in TASKS if isinstance(task, AbsTaskRetrieval)}


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar

    disable_progress_bar()
    yield
    enable_progress_bar()


def _failures(model: Any, names: set[str]) -> dict[str, str]:
    """Run mteb's check; tasks that it passes over, for example for a missing package, count as failures."""
    results = mteb.mock_run(model).task_results
    assert {name for name, result in results.items() if result is not None} == names
    return {
        name: getattr(result, "exception", "")
        for name, result in results.items()
        if result is not None and not isinstance(result, TaskResult)
    }


def test_the_lists_are_what_they_say() -> None:
    kinds = {modality for task in TASKS for modality in task.metadata.modalities}
    assert kinds == {"text", "image", "video"}
    assert sum("video" in task.metadata.modalities for task in TASKS) >= 7
    assert sum("image" in task.metadata.modalities for task in TASKS) >= 15
    assert len(TASKS) >= 50
    assert len(RETRIEVAL) >= 15


@pytest.mark.slow
def test_the_encoder_runs_every_task(encoder: Qwen3VLEncoder) -> None:
    assert _failures(encoder, {task.metadata.name for task in TASKS}) == {}


def test_the_cross_encoder_runs_every_task_that_has_candidates(cross_encoder: Qwen3VLCrossEncoder) -> None:
    """mteb lets a cross-encoder rerank, and refuses to let it search where a task names no candidates."""
    without_candidates = {name for name, task in RETRIEVAL.items() if not _has_candidates(type(task)())}
    failures = _failures(cross_encoder, set(RETRIEVAL))
    assert set(failures) == without_candidates
    assert all("requires top_ranked" in reason for reason in failures.values())
    assert without_candidates != set(RETRIEVAL)


@pytest.mark.parametrize("name", sorted(RETRIEVAL))
def test_the_cross_encoder_ranks_all_documents_of_every_task(name: str, cross_encoder: Qwen3VLCrossEncoder) -> None:
    task = type(RETRIEVAL[name])()
    for _, splits in _splits(task):
        for data in splits.values():
            if data["top_ranked"] is None:
                data["top_ranked"] = {query: list(data["corpus"]["id"]) for query in data["queries"]["id"]}
    (result,) = mteb.evaluate(cross_encoder, task, cache=None, show_progress_bar=False).task_results
    assert result.scores


def test_a_store_runs_every_task_of_retrieval(encoder: Qwen3VLEncoder) -> None:
    with StoreSearch(encoder, ":memory:") as search:
        assert _failures(search, set(RETRIEVAL)) == {}


def _splits(task: Any) -> Any:
    task.load_data()
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    return task.dataset.items()


def _has_candidates(task: Any) -> bool:
    return all(data["top_ranked"] is not None for _, splits in _splits(task) for data in splits.values())
