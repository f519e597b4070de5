"""`embed` and `rerank` on workers give what one process gives; rows that fail are rows with an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from qwen3vl_ray import Embed, embed, read, rerank, split_errors
from qwen3vl_ray.pools import map_on_models

from qwen3vl import Embedder, RecipeError, Reranker
from tests.ray.gates import GatedEmbed
from tests.support.sample_library import STAR

CPU: dict[str, Any] = {"model": "tiny", "num_gpus": 0, "max_workers": 1, "device": "cpu"}
NUM_PAGES = 60


@pytest.fixture(scope="module")
def rows(library_folder: Path) -> list[dict[str, Any]]:
    """Inputs of every kind, and three that fail."""
    star, page = str(library_folder / "star.png"), f"{library_folder / 'slides.pdf'}#page=2"
    corrupt = str(library_folder / "corrupt [x].png")
    mover = str(library_folder / "mover.mp4")
    texts = [{"text": f"scene {number}: a red star on the left", "image": None, "video": None} for number in range(20)]
    return [
        *texts,
        {"text": "", "image": star, "video": None},
        {"text": STAR.things[0].shape, "image": star, "video": None},
        {"text": None, "image": page, "video": None},
        {"text": None, "image": None, "video": mover},
        {"text": None, "image": corrupt, "video": None},
        {"text": "", "image": "/nowhere/missing.png", "video": None},
        {"text": None, "image": None, "video": None},
    ]


def numbered(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"number": number, **row} for number, row in enumerate(rows)])


def test_workers_give_the_vectors_of_one_process(
    local_ray: Any, rows: list[dict[str, Any]], tiny_embedder: Embedder
) -> None:
    dataset = embed(local_ray.data.from_arrow(numbered(rows)), batch_size=8, **CPU)
    embedded, failed = split_errors(dataset)
    found = pa.concat_tables(local_ray.get(embedded.to_arrow_refs())).sort_by("number")
    expected = tiny_embedder.embed([{key: row[key] for key in row if row[key]} for row in rows], on_error="collect")
    assert found.schema.field("vector").type == pa.list_(pa.float32(), tiny_embedder.dimension)
    vectors = np.array(found["vector"].to_pylist(), dtype=np.float32)
    cosines = np.sum(vectors * expected.values[expected.ok], axis=1)
    assert len(cosines) == 24
    assert cosines.min() > 0.99999
    assert {json.loads(recipe)["weights"] for recipe in found["recipe"].to_pylist()} == {tiny_embedder.recipe.weights}
    failures = sorted(failed.take_all(), key=lambda row: row["number"])
    assert [row["number"] for row in failures] == [24, 25, 26]
    assert [row["error"] for row in failures] == [error.reason for error in expected.errors]
    assert all(row["vector"] is None and row["recipe"] is None for row in failures)


def test_rows_with_an_error_keep_it(tiny_embedder: Embedder) -> None:
    table = pa.table({"text": ["a", "b"], "error": pa.array([None, "it cannot be read"], pa.string())})
    result = Embed("tiny", device="cpu")(table).to_pylist()
    assert [row["error"] for row in result] == [None, "it cannot be read"]
    assert np.allclose(result[0]["vector"], tiny_embedder.embed("a")[0], atol=1e-6)
    assert result[1]["vector"] is None


def test_text_beside_media_is_not_embedded_unless_fused(library_folder: Path, tiny_embedder: Embedder) -> None:
    star = str(library_folder / "star.png")
    table = pa.table({"text": ["words", "words"], "image": [star, star], "fused": [False, True]})
    result = Embed("tiny", device="cpu")(table).to_pylist()
    expected = tiny_embedder.embed([{"image": star}, {"image": star, "text": "words"}])
    assert np.allclose([row["vector"] for row in result], expected, atol=1e-6)


def test_a_worker_refuses_another_recipe(tiny_embedder: Embedder) -> None:
    with pytest.raises(RecipeError, match="max_frames is 64 there and 8 here"):
        Embed("tiny", device="cpu", max_frames=8, recipe=tiny_embedder.recipe)


def test_batches_of_another_format_are_refused() -> None:
    with pytest.raises(TypeError, match='batch_format="pyarrow"'):
        Embed("tiny", device="cpu")({"text": np.array(["a"])})


def test_rerank_scores_the_documents_of_each_row(local_ray: Any, library_folder: Path, tiny_reranker: Reranker) -> None:
    star, corrupt = str(library_folder / "star.png"), str(library_folder / "corrupt [x].png")
    documents = [[{"image": star}, {"text": "a red star"}], [{"text": "a blue ring"}, {"image": corrupt}], []]
    queries = ["a red star", "a blue ring", "nothing to score"]
    table = pa.table({"query": queries, "documents": documents})
    result = rerank(local_ray.data.from_arrow(table), **CPU).take_all()
    by_query = {row["query"]: row for row in result}
    assert np.allclose(by_query[queries[0]]["scores"], tiny_reranker.score(queries[0], documents[0]), atol=1e-6)
    assert by_query[queries[0]]["error"] is None
    assert by_query[queries[1]]["scores"][1] is None
    assert by_query[queries[1]]["error"].startswith("document 1: ")
    assert list(by_query[queries[2]]["scores"]) == []


def test_vectors_arrive_before_the_last_page_of_a_pdf_is_rendered(local_ray: Any, tmp_path: Path) -> None:
    """The last page waits for the first vectors: the run would fail if rows left it at its end only."""
    file, gate = tmp_path / "pages.pdf", tmp_path / "arrived"
    first, *others = [Image.new("1", (64, 64), number % 2) for number in range(NUM_PAGES)]
    first.save(file, save_all=True, append_images=others)
    last = f"page={NUM_PAGES}"
    vectors = map_on_models(
        read(file),
        GatedEmbed,
        {"locator": last, "gate": str(gate), "model": "tiny", "device": "cpu", "max_pixels": 64 * 64},
        num_gpus=0,
        min_workers=1,
        max_workers=1,
        batch_size=8,
    )
    locators: list[str] = []
    batches: Iterator[Any] = iter(vectors.iter_batches(batch_size=None, batch_format="pyarrow"))
    for batch in batches:
        assert batch["error"].null_count == batch.num_rows
        locators += batch["locator"].to_pylist()
        gate.touch()
    assert sorted(locators) == sorted(f"page={number}" for number in range(1, NUM_PAGES + 1))
