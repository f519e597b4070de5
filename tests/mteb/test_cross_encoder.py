"""`Qwen3VLCrossEncoder`: pairs in any order are scored by query, and their scores are in the order of the pairs."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from mteb.types import PromptType
from qwen3vl_mteb import Qwen3VLCrossEncoder
from qwen3vl_mteb import cross_encoder as module

from qwen3vl import BatchError, Reranker
from qwen3vl.demo.scenes import random_scene
from tests.mteb.drawn_tasks import metadata
from tests.mteb.test_encoder import TASK, loader

NUM_QUERIES, NUM_DOCUMENTS = 5, 9


@pytest.fixture(scope="module")
def pairs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of queries, of text or of text and image, with documents, shuffled."""
    random = Random(1)
    scenes = [random_scene(random) for _ in range(NUM_DOCUMENTS)]
    documents = [{"text": "", "image": scene.draw(random)} for scene in scenes]
    queries = [
        {"text": f"{scene.caption()}: find it", "image": scene.draw(random) if number % 2 else None}
        for number, scene in enumerate(scenes[:NUM_QUERIES])
    ]
    drawn = [(query, document) for query in queries for document in documents]
    random.shuffle(drawn)
    return drawn


def predict(model: Qwen3VLCrossEncoder, pairs: Any, task: Any = TASK) -> Any:
    queries, documents = zip(*pairs, strict=True)
    return model.predict(loader(*queries, batch_size=4), loader(*documents, batch_size=4), **task)


def used(reranker: Reranker, before: Any) -> dict[str, Any]:
    after = reranker.engine.stats
    return {name: getattr(after, name) - getattr(before, name) for name in before.__slots__}


def test_scores_are_those_of_the_reranker(cross_encoder: Qwen3VLCrossEncoder, pairs: Any) -> None:
    found = predict(cross_encoder, pairs)
    expected = [
        cross_encoder.reranker.score({key: value for key, value in query.items() if value}, [document["image"]])[0]
        for query, document in pairs
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32
    assert len(set(np.round(found, 6))) > len(found) / 2


def test_pairs_in_any_order_share_the_prefix_of_their_query(cross_encoder: Qwen3VLCrossEncoder, pairs: Any) -> None:
    reranker = cross_encoder.reranker
    before = reranker.engine.stats
    grouped = predict(cross_encoder, pairs)
    shared = used(reranker, before)
    assert shared["calls"] == NUM_QUERIES
    assert shared["items"] == len(pairs)
    before = reranker.engine.stats
    alone = [predict(cross_encoder, [pair])[0] for pair in pairs]
    single = used(reranker, before)
    np.testing.assert_allclose(grouped, alone, atol=1e-5)
    assert single["calls"] == single["items"] == len(pairs)
    assert shared["tokens_requested"] == single["tokens_requested"]
    assert single["tokens_computed"] == single["tokens_requested"]
    assert shared["tokens_computed"] < 0.6 * single["tokens_computed"]


def test_windows_end_with_a_query(
    cross_encoder: Qwen3VLCrossEncoder, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered = sorted(pairs, key=lambda pair: pair[0]["text"])
    expected = predict(cross_encoder, ordered)
    for window, most, num_calls in ((10, 20, NUM_QUERIES), (4, 5, 2 * NUM_QUERIES), (1, 1, len(pairs))):
        monkeypatch.setattr(module, "_WINDOW_PAIRS", window)
        monkeypatch.setattr(module, "_MAX_WINDOW_PAIRS", most)
        before = cross_encoder.reranker.engine.stats
        np.testing.assert_allclose(predict(cross_encoder, ordered), expected, atol=1e-5)
        assert used(cross_encoder.reranker, before)["calls"] == num_calls


def test_the_instruction_is_that_of_the_query(cross_encoder: Qwen3VLCrossEncoder, pairs: Any) -> None:
    query, document = next(pair for pair in pairs if pair[0]["image"] is None)
    reranker = cross_encoder.reranker

    def score(instruction: str | None) -> Any:
        return reranker.score(query["text"], [document["image"]], instruction=instruction)

    plain = {**TASK, "task_metadata": metadata("NoPrompt", "t2i", "Reranking")}
    np.testing.assert_allclose(predict(cross_encoder, [(query, document)], plain), score(None), atol=1e-5)
    asked = metadata("WithPrompt", "t2i", "Reranking").model_copy(update={"prompt": {"query": "Which one is it?"}})
    found = predict(cross_encoder, [(query, document)], {**TASK, "task_metadata": asked})
    np.testing.assert_allclose(found, score("Which one is it?"), atol=1e-5)
    assert abs(float(found[0] - score(None)[0])) > 1e-6
    own = Qwen3VLCrossEncoder(reranker, instructions={"WithPrompt": "My own."})
    found = predict(own, [(query, document)], {**TASK, "task_metadata": asked, "prompt_type": PromptType.document})
    np.testing.assert_allclose(found, score("My own."), atol=1e-5)


def test_errors_name_the_pair_and_keep_the_others(cross_encoder: Qwen3VLCrossEncoder, pairs: Any) -> None:
    broken = {"text": "", "video": {"bytes": b"no video", "path": None}}
    text = {"text": "a red circle", "video": None}
    mixed = [(text, text), (text, broken), (broken, text), (text, {"text": "a blue star", "video": None})]
    with pytest.raises(BatchError, match="2 of 4 items failed") as caught:
        predict(cross_encoder, mixed)
    assert [error.index for error in caught.value.errors] == [1, 2]
    assert [bool(ok) for ok in np.isfinite(caught.value.results)] == [True, False, False, True]


def test_both_sides_have_the_same_number(cross_encoder: Qwen3VLCrossEncoder) -> None:
    with pytest.raises(ValueError, match="shorter"):
        cross_encoder.predict(loader({"text": "a"}, {"text": "b"}), loader({"text": "a"}), **TASK)


def test_no_pairs_have_no_scores(cross_encoder: Qwen3VLCrossEncoder) -> None:
    assert cross_encoder.predict(loader(), loader(), **TASK).shape == (0,)
