"""A model in vLLM gives the official implementation's vectors and scores, through the same classes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import Embedder, Reranker
from tests.conftest import CASES, REFERENCE, resolve
from tests.golden.inputs import scene
from tests.test_golden import check
from tests.vllm.conftest import RUNNING

NOT_RECORDED = "image-jpeg", "video"
"""Decoded and resized by libraries whose results may differ in single pixels, so that requests are not the same."""
RERANK = [name for name, case in CASES["rerank"].items() if "checkpoint" not in case]


def is_recorded(name: str, case: dict[str, Any]) -> bool:
    return RUNNING or not (name.startswith(NOT_RECORDED) or "video" in str(case))


EMBED = [name for name, case in CASES["embed"].items() if is_recorded(name, case)]


@pytest.fixture(scope="module")
def embedder(vllm_server: Callable[[str], str], checkpoints: Path) -> Iterator[Embedder]:
    with Embedder(vllm_server("embedder"), tokenizer=checkpoints / "embedding") as model:
        yield model


@pytest.fixture(scope="module")
def reranker(vllm_server: Callable[[str], str], checkpoints: Path) -> Iterator[Reranker]:
    with Reranker(vllm_server("reranker"), tokenizer=checkpoints / "reranker") as model:
        yield model


def video() -> list[Any]:
    """Frames that are not resized."""
    return [np.roll(scene(512, 384, 14), 40 * index, axis=1) for index in range(5)]


@pytest.mark.parametrize("name", EMBED)
def test_vector_equals_the_reference(name: str, embedder: Embedder, media: dict[str, Path]) -> None:
    check(name, embedder.embed(resolve(CASES["embed"][name], media))[0])


def test_vectors_of_one_call(embedder: Embedder, media: dict[str, Path], tmp_path: Path) -> None:
    """In order, beside an input that fails; blocking, as a stream and awaited."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(media["photo"].read_bytes()[:2000])
    inputs: list[Any] = [resolve(CASES["embed"][name], media) for name in EMBED]
    inputs.insert(3, {"image": broken})
    batch = embedder.embed(inputs, on_error="collect")
    assert [error.index for error in batch.errors] == [3]
    assert str(broken) in str(batch.errors[0])
    assert "MediaError" not in batch.errors[0].reason
    for name, vector in zip(EMBED, np.delete(batch.values, 3, axis=0), strict=True):
        check(name, vector)
    expected = sum(count for name in EMBED for _, count in REFERENCE["embed"][name]["ids"])
    assert batch.num_tokens == expected
    awaited = asyncio.run(embedder.aembed(inputs, on_error="collect"))
    np.testing.assert_allclose(np.nan_to_num(awaited.values), np.nan_to_num(batch.values), atol=1e-6)
    streamed = dict(embedder.stream(inputs))
    assert sorted(streamed) == list(range(len(inputs)))
    assert str(streamed[3]) == str(batch.errors[0])


def test_video_and_its_times(embedder: Embedder, golden_embedder: Embedder) -> None:
    item = {"video": video(), "text": "a moving box", "max_frames": 4}
    np.testing.assert_allclose(embedder.embed(item), golden_embedder.embed(item), atol=1e-5)


def test_media_are_shrunk_and_texts_cut_as_in_this_process(
    vllm_server: Callable[[str], str], checkpoints: Path, media: dict[str, Path]
) -> None:
    inputs = [resolve(CASES["embed"][name], media) for name in ("text-300-words", "image-portrait")]
    with (
        Embedder(vllm_server("embedder"), tokenizer=checkpoints / "embedding", max_length=200) as remote,
        Embedder(checkpoints / "embedding", device="cpu", max_length=200) as local,
    ):
        batch, expected = remote.embed(inputs, on_error="collect"), local.embed(inputs, on_error="collect")
    np.testing.assert_allclose(batch.values, expected.values, atol=1e-5)
    assert batch.notices == expected.notices
    assert len(batch.notices) == 2


def test_names_of_control_tokens_in_texts_are_text(embedder: Embedder, golden_embedder: Embedder) -> None:
    text = "an <|im_end|> that is text"
    np.testing.assert_allclose(embedder.embed(text), golden_embedder.embed(text), atol=1e-5)


def test_dimensions_are_cut_here(vllm_server: Callable[[str], str], checkpoints: Path) -> None:
    name = "text-plain"
    with Embedder(vllm_server("embedder"), tokenizer=checkpoints / "embedding", dimensions=32) as cut:
        vector = cut.embed(CASES["embed"][name])[0]
    expected = np.array(REFERENCE["embed"][name]["vector"])[:32]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_recipe_is_that_of_the_checkpoint(
    embedder: Embedder, reranker: Reranker, golden_embedder: Embedder, golden_reranker: Reranker
) -> None:
    assert embedder.recipe.digest == golden_embedder.recipe.digest
    assert reranker.recipe.digest == golden_reranker.recipe.digest


@pytest.mark.parametrize("name", RERANK)
def test_scores_equal_the_reference(name: str, reranker: Reranker, media: dict[str, Path]) -> None:
    case = CASES["rerank"][name]
    if not is_recorded(name, {"video": case["query"]} if "video" in case["query"] else {}):
        pytest.skip("its query is a video, which is not recorded")
    keep = [index for index, document in enumerate(case["documents"]) if is_recorded("", document)]
    documents = [resolve(case["documents"][index], media) for index in keep]
    query, instruction = resolve(case["query"], media), case.get("instruction")
    expected = np.array(REFERENCE["rerank"][name]["scores"])[keep]
    np.testing.assert_allclose(reranker.score(query, documents, instruction=instruction), expected, atol=1e-5, rtol=0)
    awaited = asyncio.run(reranker.ascore(query, documents, instruction=instruction))
    np.testing.assert_allclose(awaited, expected, atol=1e-5, rtol=0)


def test_ranking_with_videos_on_both_sides(reranker: Reranker, golden_reranker: Reranker) -> None:
    query = {"video": video()[:4]}
    documents: list[Any] = [{"video": video()[1:]}, "a moving box", {"image": video()[0]}]
    expected = golden_reranker.score(query, documents)
    np.testing.assert_allclose(reranker.score(query, documents), expected, atol=1e-5, rtol=0)
    ranked = reranker.rank(query, documents)
    assert [index for index, _ in ranked] == np.argsort(-np.asarray(expected)).tolist()
