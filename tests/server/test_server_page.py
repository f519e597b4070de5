"""docs/server.md and docs/search-page.md: their code runs against a server, and the options that they name exist."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_server import SERVER_POLICY, create_app

from qwen3vl import Embedder, Loader, Reranker, ingest, open_store
from qwen3vl.cli import main
from tests.server.test_serve import needs_entry_point
from tests.support.drawn_scenes import draw_scenes
from tests.support.model_server import ModelServer
from tests.test_docs import blocks, read

PAGE, SEARCH_PAGE = "docs/server.md", "docs/search-page.md"


def test_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the tiny models in place of the real ones, in a folder with images."""
    for client in (
        *("openai", "cohere", "voyageai", "langchain_openai", "langchain_cohere"),
        *("llama_index.embeddings.openai_like", "llama_index.postprocessor.jinaai_rerank"),
    ):
        pytest.importorskip(client)
    monkeypatch.chdir(tmp_path)
    draw_scenes(tmp_path / "photos", 5)
    embedder = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
    namespace: dict[str, Any] = {}
    with embedder, reranker, ModelServer(create_app(embedder=embedder, reranker=reranker)) as server:
        for block in blocks(PAGE, "python"):
            code = re.sub(r"Qwen/Qwen3-VL-\w+-2B", "tiny", block).replace("http://localhost:8000", server.url)
            exec(compile(code, PAGE, "exec"), namespace)
    output = capsys.readouterr().out
    assert "2 vectors of 128 values" in output
    assert "index=1, relevance_score=" in output
    assert re.search(r"^\[(-?\d+, ){7}-?\d+\]$", output, re.MULTILINE)
    assert re.search(r"^64 values, \d+ tokens$", output, re.MULTILINE)
    assert "\na round red shape\n" in output
    assert "\nbest: a round red shape\n" in output
    assert len(re.findall(r"^\d [\d.e-]+$", output, re.MULTILINE)) == 3
    assert "(3, 128) [{'index': 1, 'source': \"''\", 'reason': 'it is empty" in output
    with ModelServer(namespace["app"]) as mounted:
        assert mounted.answer("/models/v1/embeddings", {"input": "a"})["model"] == "tiny"
    namespace["embedder"].close()


def test_code_of_the_search_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the store that the commands at its top make, of a folder with images."""
    monkeypatch.chdir(tmp_path)
    draw_scenes(tmp_path / "photos", 5)
    policy = replace(SERVER_POLICY, folders=("photos", "library.media"))
    embedder = Embedder("tiny", device="cpu", policy=policy)
    reranker = Reranker("tiny", device="cpu", policy=policy)
    store = open_store("library")
    with embedder, reranker:
        ingest(Loader().load("photos"), embedder, store)
        app = create_app(embedder=embedder, reranker=reranker, store=store, media="library.media")
        namespace: dict[str, Any] = {}
        with ModelServer(app) as server:
            for block in blocks(SEARCH_PAGE, "python"):
                exec(compile(block.replace("http://localhost:8000", server.url), SEARCH_PAGE, "exec"), namespace)
    store.close()
    output = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in output[:3]] == ["1", "2", "3"]
    assert len(namespace["similar"]) == 4
    assert output[3] == "done 5 added []"
    assert output[4].endswith("'documents': 1}]")
    assert output[5] == "{'deleted': 1}"


@needs_entry_point
@pytest.mark.parametrize("page", [PAGE, SEARCH_PAGE])
def test_options_of_the_page_exist(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    assert main(["demo", "--help"]) == 0
    options = set(re.findall(r"--[a-z][a-z-]+", read(page)))
    assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
