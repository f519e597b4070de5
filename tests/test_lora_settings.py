"""Every place that names a model takes an adapter: the frameworks, the command line, Chroma's function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_qwen3_vl import Qwen3VLEmbeddings
from langchain_qwen3_vl import Qwen3VLReranker as LangChainReranker
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLRerank
from qwen3vl_chroma import Qwen3VLEmbeddingFunction

from qwen3vl import Embedder, MediaPolicy, Reranker, open_store
from qwen3vl.cli import main
from qwen3vl.model.hub import resolve_adapter, resolve_checkpoint
from tests.support.drawn_scenes import draw_scenes
from tests.support.lora_adapters import write_adapter

QUERY = "a red circle"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_adapter(resolve_checkpoint("tiny", "embedding").folder, tmp_path_factory.mktemp("a") / "adapter"))


@pytest.fixture(scope="module")
def reranker_adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_adapter(resolve_checkpoint("tiny", "reranker").folder, tmp_path_factory.mktemp("b") / "adapter"))


@pytest.fixture(scope="module")
def vector(adapter: str) -> np.ndarray:
    with Embedder("tiny", adapter=adapter, device="cpu") as embedder:
        vector: np.ndarray = embedder.embed(QUERY)[0]
    return vector


def test_embeddings_of_the_frameworks(adapter: str, vector: np.ndarray, tiny_embedder: Embedder) -> None:
    langchain = Qwen3VLEmbeddings(model="tiny", adapter=adapter, device="cpu")
    llama_index = Qwen3VLEmbedding(model_name="tiny", adapter=adapter, device="cpu")
    chroma = Qwen3VLEmbeddingFunction.of(langchain.embedder.recipe)
    assert chroma.get_config()["adapter"] == str(Path(adapter).resolve())
    assert langchain.embedder.engine.model is llama_index.embedder.engine.model
    for embedded in (langchain.embed_query(QUERY), llama_index.get_query_embedding(QUERY), chroma([QUERY])[0]):
        np.testing.assert_allclose(embedded, vector, atol=5e-6, rtol=0)
    assert vector @ tiny_embedder.embed(QUERY)[0] < 0.999
    assert "adapter" not in Qwen3VLEmbeddingFunction.of(tiny_embedder.recipe).get_config()


def test_rerankers_of_the_frameworks(reranker_adapter: str, tiny_reranker: Reranker) -> None:
    with Reranker("tiny", adapter=reranker_adapter, device="cpu") as reranker:
        expected = float(reranker.score(QUERY, ["a blue star"])[0])
    assert expected != pytest.approx(float(tiny_reranker.score(QUERY, ["a blue star"])[0]), rel=1e-2)
    langchain = LangChainReranker(model="tiny", adapter=reranker_adapter, device="cpu")
    (document,) = langchain.compress_documents([Document("a blue star")], QUERY)
    assert document.metadata["relevance_score"] == pytest.approx(expected, rel=1e-3)
    llama_index = Qwen3VLRerank(model="tiny", adapter=reranker_adapter, device="cpu")
    assert float(llama_index.reranker.score(QUERY, ["a blue star"])[0]) == pytest.approx(expected, rel=1e-3)


def test_command_line(
    adapter: str, reranker_adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """A store remembers the adapter of its vectors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")  # paths are not wrapped
    draw_scenes(tmp_path / "photos", 3)
    assert main(["index", "photos", "--store", "library", "--model", "tiny", "--adapter", adapter]) == 0
    store = open_store("library", "qwen3vl")
    recipe = store.recipe()
    store.close()
    assert recipe is not None
    assert recipe.adapter == str(Path(adapter).resolve())
    assert main(["search", QUERY, "--store", "library", "--reranker", "tiny"]) == 0
    plain = capsys.readouterr().out
    assert ".png" in plain
    assert main(["search", QUERY, "--store", "library", "--reranker-adapter", reranker_adapter]) == 0
    assert ".png" in (reranked := capsys.readouterr().out)
    assert reranked != plain
    assert main(["search", QUERY, "--store", "library", "--model", "tiny"]) == 2
    assert "another recipe" in " ".join(capsys.readouterr().out.split())
    assert main(["search", QUERY, "--store", "library", "--model", "tiny", "--adapter", adapter]) == 0


def test_adapters_on_the_hub(adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is passed to the hub's client is checked: it is not reached here."""
    calls: list[Any] = []
    commit = tmp_path / "0123abc"
    commit.symlink_to(adapter)

    def download(name: str, **options: Any) -> str:
        calls.append((name, options["revision"], options["allow_patterns"]))
        return str(commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_adapter("someone/adapter").name == "someone/adapter@0123abc"
    with Embedder("tiny", adapter="someone/adapter@v2", device="cpu", policy=MediaPolicy()) as embedder:
        assert embedder.recipe.adapter == "someone/adapter@0123abc"
    files = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"]
    assert calls == [("someone/adapter", None, files), ("someone/adapter", "v2", files)]
