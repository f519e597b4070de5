"""What takes the name of a model takes the URL of a server: the adapters, Chroma, the command line; without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLReranker
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from pydantic import SecretStr
from qwen3vl_chroma.functions import Qwen3VLEmbeddingFunction
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Embedder, Loader, Reranker, Retriever, ingest, open_store
from qwen3vl.cli import main
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer

WITHOUT_TORCH = """
import sys

for name in ("torch", "tokenizers", "safetensors", "huggingface_hub", "transformers"):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
url, library, store = sys.argv[1:]

from qwen3vl import Embedder, Loader, ModelError, Reranker, Retriever, ingest, open_store
from qwen3vl.cli import main
from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLReranker

with Embedder(url) as embedder, Reranker(url) as reranker:
    inputs = ["a text", {"image": f"{library}/star.png"}, {"video": f"{library}/mover.mp4"}]
    assert embedder.embed(inputs).shape == (3, 128)
    assert reranker.score("a star", ["a star", {"image": f"{library}/star.png"}]).shape == (2,)
    library_store = open_store(store)
    report = ingest(Loader().load([library]), embedder, library_store, thumbnails=4000)
    assert report.added > 30, report
    assert Retriever(embedder, library_store, reranker).search({"image": f"{library}/star.png"}, 1)[0].rerank_score
    library_store.close()
assert len(Qwen3VLEmbeddings(model=url).embed_query("a star")) == 128
assert Qwen3VLReranker(model=url).compress_documents([], "a star") == []
assert main(["search", "a red star", "--store", store, "--model", url, "--rerank", "--html", f"{store}.html"]) == 0
assert main(["doctor", "--json"]) == 0
for make in (Embedder, Reranker):
    try:
        make("tiny")
    except ModelError as error:
        assert "tiny cannot be run in this process, because torch is not installed: install qwen3vl" in str(error)
    else:
        raise AssertionError("a model without torch")
assert main(["search", "a red star", "--store", store]) == 2
assert main(["demo", "--out", f"{store}-demo"]) == 2
"""


def test_client_works_without_torch(tiny_server: ModelServer, library_folder: Path, tmp_path: Path) -> None:
    arguments = [tiny_server.url, str(library_folder), str(tmp_path / "store")]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert '"details": "only in servers, by their URLs, since torch is not installed' in result.stdout


def test_store_is_shared_by_models_here_and_in_a_server(
    tiny_server: ModelServer, tiny_embedder: Embedder, tiny_reranker: Reranker, library_folder: Path
) -> None:
    documents = list(Loader().load([library_folder]))
    store = open_store(":memory:")
    with Embedder(tiny_server.url) as embedder, Reranker(tiny_server.url) as reranker:
        report = ingest(documents, embedder, store)
        again = ingest(documents, tiny_embedder, store)
        assert (again.added, again.unchanged, again.failed) == (0, report.added + report.unchanged, report.failed)
        query = {"image": library_folder / "star.png", "text": "a star"}
        remote = Retriever(embedder, store, reranker).search(query, 5)
        local = Retriever(tiny_embedder, store, tiny_reranker).search(query, 5)
    assert [hit.document.source for hit in remote] == [hit.document.source for hit in local]
    assert_close([hit.rerank_score for hit in remote], [hit.rerank_score for hit in local])


def test_commands(
    tiny_server: ModelServer, library_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, url = str(tmp_path / "store"), tiny_server.url
    assert main(["index", str(library_folder), "--store", store, "--model", url, "--json"]) == 1
    indexed = json.loads(capsys.readouterr().out)
    assert indexed["added"] > 30
    assert main(["index", str(library_folder), "--store", store, "--model", "tiny", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["added"] == 0
    hits = []
    for options in (
        ["--model", url, "--rerank"],
        ["--model", "tiny", "--reranker", url],
        ["--model", "tiny", "--reranker", "tiny"],
    ):
        assert main(["search", "a red star", "--store", store, "--json", *options]) == 0
        hits.append([(hit["source"], round(hit["rerank_score"], 4)) for hit in json.loads(capsys.readouterr().out)])
    assert hits[0] == hits[1] == hits[2]
    assert main(["search", "a red star", "--store", store, "--model", url, "--device", "cuda"]) == 2
    assert "device: for a model that runs in this process" in " ".join(capsys.readouterr().out.split())
    assert main(["search", "a red star", "--store", store, "--model", "http://127.0.0.1:9/v1/"]) == 2
    assert "http://127.0.0.1:9/v1 cannot be reached" in " ".join(capsys.readouterr().out.split())


def test_key_and_device_of_the_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "a-long-random-key"
    monkeypatch.setenv("QWEN3VL_DEVICE", "cuda")
    monkeypatch.delenv("QWEN3VL_API_KEY", raising=False)
    served = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    settings = ServerSettings(api_keys=(key,), embedder_name="shapes")
    with served, ModelServer(create_app(embedder=served, settings=settings)) as server:
        kwargs = {"timeout_s": 30.0, "max_retries": 1}
        embeddings = Qwen3VLEmbeddings(model=server.url, api_key=SecretStr(key), model_kwargs=kwargs)
        embedding = Qwen3VLEmbedding(model_name=server.url, api_key=key)  # type: ignore[arg-type]
        expected = served.embed("a text")[0]
        assert_close(embeddings.embed_query("a text"), expected)
        assert_close(embedding.get_text_embedding("a text"), expected)
        restored = Qwen3VLEmbedding.from_dict(embedding.to_dict(), api_key=key)
        assert restored.embedder is embedding.embedder
        assert Qwen3VLEmbeddings(**embeddings.model_dump(), api_key=SecretStr(key)).embedder is embeddings.embedder
        for settings_of_adapter in (embeddings.model_dump(), repr(embeddings), embedding.to_dict(), repr(embedding)):
            assert key not in str(settings_of_adapter)
        with pytest.raises(ValueError, match="device: for a model that runs in this process"):
            _ = Qwen3VLReranker(model=server.url, device="cuda", api_key=SecretStr(key)).reranker
        with pytest.raises(ValueError, match="api_key would be stored with each collection"):
            Qwen3VLEmbeddingFunction(server.url, api_key=key)
        monkeypatch.setenv("QWEN3VL_API_KEY", key)
        function = Qwen3VLEmbeddingFunction(server.url, dimensions=16)
        with Embedder("tiny", device="cpu", dimensions=16) as local:
            assert_close(function(["a text"])[0], local.embed("a text")[0])
        assert Qwen3VLEmbeddingFunction.build_from_config(function.get_config()).embedder is function.embedder
