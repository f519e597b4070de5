"""Retrievers and the command line search by words, and by words and vectors together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from qwen3vl import BatchError, Embedder, InputError, Reranker, Retriever, Store, ingest, open_store
from qwen3vl.cli import main
from qwen3vl.stores import Mode
from tests.support.catalogue import numbers, parts


@pytest.fixture(scope="module")
def catalogue(tiny_embedder: Embedder) -> Iterator[Store]:
    store = open_store(":memory:", layout={"hybrid": True})
    ingest(parts(60), tiny_embedder, store)
    yield store
    store.close()


def test_retriever_searches_by_the_text_of_the_query(
    catalogue: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    retriever = Retriever(tiny_embedder, catalogue)
    picture = {"image": Image.new("RGB", (64, 64), "red")}
    (best,) = retriever.search("AX-7031", 1, mode="text")
    assert numbers([best]) == [31]
    assert 31 in numbers(retriever.search("valve AX-7031", 2))
    assert 31 in numbers(retriever.search({**picture, "text": "AX-7031"}, 2))
    assert retriever.search("AX-7031", 3) == retriever.search("AX-7031", 3, mode="hybrid")
    assert retriever.search("AX-7031", 3, threshold=-1) == retriever.search("AX-7031", 3, mode="dense")
    assert retriever.search(picture, 3) == retriever.search(picture, 3, mode="dense")
    reranked = Retriever(tiny_embedder, catalogue, tiny_reranker, candidates=5).search("AX-7031", 3, mode="text")
    assert len(reranked) == 3
    assert all(hit.rerank_score is not None for hit in reranked)


async def test_async_retriever_equals_the_blocking_one(catalogue: Store, tiny_embedder: Embedder) -> None:
    retriever = Retriever(tiny_embedder, catalogue)
    for mode in ("dense", "text", "hybrid", None):
        queries = ["AX-7031 sealed", "nylon valve"]
        hits = await retriever.asearch_many(queries, 4, mode=mode)
        assert hits == retriever.search_many(queries, 4, mode=mode)


def test_text_mode_runs_no_model(catalogue: Store, tiny_embedder: Embedder) -> None:
    retriever = Retriever(tiny_embedder, catalogue)
    before = tiny_embedder.engine.stats.calls
    retriever.search("AX-7031", mode="text")
    assert tiny_embedder.engine.stats.calls == before


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_queries_without_a_text_are_errors_beside_the_others(
    catalogue: Store, tiny_embedder: Embedder, mode: Mode
) -> None:
    retriever = Retriever(tiny_embedder, catalogue)
    picture = {"image": Image.new("RGB", (64, 64), "red")}
    with pytest.raises(InputError, match=r"it has no text, and mode='.*' searches by words: add a text, or leave"):
        retriever.search(picture, mode=mode)
    with pytest.raises(BatchError) as caught:
        retriever.search_many([picture, "AX-7031", {}, "AX-7012"], 1, mode=mode)
    assert [error.index for error in caught.value.errors] == [0, 2]
    assert "it is empty" in str(caught.value.errors[1])
    assert [len(hits) for hits in caught.value.results] == [0, 1, 0, 1]
    if mode == "text":
        assert numbers(caught.value.results[1]) == [31]


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid", None])
def test_query_whose_object_raises_is_an_error_beside_the_others(
    catalogue: Store, tiny_embedder: Embedder, mode: Mode | None
) -> None:
    queries: list[Any] = ["AX-7031", {"image": torch.zeros(4, 4, 3, requires_grad=True)}, "AX-7012"]
    with pytest.raises(BatchError) as caught:
        Retriever(tiny_embedder, catalogue).search_many(queries, 1, mode=mode)
    (error,) = caught.value.errors
    assert (error.index, "RuntimeError: Can't call numpy" in error.reason) == (1, True)
    assert [len(hits) for hits in caught.value.results] == [1, 0, 1]


def test_command_line_indexes_and_searches_by_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        (tmp_path / f"part_{number}.md").write_text(f"Ventile AX-{7000 + number}")
    store = str(tmp_path / "store")
    index = ["index", str(tmp_path / "*.md"), "--model", "tiny", "--store"]
    assert main([*index, store, "--language", "german"]) == 0
    capsys.readouterr()
    for arguments, source in (
        (["Ventil AX-7005", "--mode", "text"], "part_5.md"),
        (["part 3", "--mode", "text"], "part_3.md"),
        (["AX-7002"], "part_2.md"),
    ):
        assert main(["search", *arguments, "--store", store, "--limit", "2", "--json"]) == 0
        assert source in [Path(hit["source"]).name for hit in json.loads(capsys.readouterr().out)]
    assert main([*index, store]) == 0
    for arguments, reason in (
        ([*index, store, "--hybrid"], "its layout's hybrid is"),
        ([*index, f"{store}2", "--language", "klingon"], "language is 'klingon'"),
        ([*index, f"chroma:{store}3", "--hybrid"], "Chroma stores full vectors only"),
    ):
        capsys.readouterr()
        assert main([*arguments, "--json"]) == 2
        assert reason in json.loads(capsys.readouterr().out)["error"]
