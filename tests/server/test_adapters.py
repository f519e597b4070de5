"""Several LoRA adapters of one base in one server: requests choose by the name of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from langchain_qwen3_vl import Qwen3VLEmbeddings
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from qwen3vl_server.serving import parse_adapters

from qwen3vl import Embedder, ModelError, Reranker
from qwen3vl.cli import extensions, main
from qwen3vl.model.hub import resolve_checkpoint
from tests.support.drawn_scenes import draw_scenes
from tests.support.engines import assert_close
from tests.support.lora_adapters import write_adapter
from tests.support.model_server import ModelServer
from tests.support.server_process import ServerProcess
from tests.test_docs import read

needs_entry_point = pytest.mark.skipif(
    not entry_points(group=extensions.ENTRY_POINT_GROUP, name="serve"), reason="qwen3vl-server is not installed"
)
QUERY, DOCUMENTS = "a red circle", ["a round red shape", "a blue star"]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    embedding, reranker = (resolve_checkpoint("tiny", kind).folder for kind in ("embedding", "reranker"))
    return {
        "invoices": write_adapter(embedding, folder / "invoices", seed=1),
        "photos": write_adapter(embedding, folder / "photos", seed=2),
        "strict": write_adapter(reranker, folder / "strict", seed=3),
    }


@pytest.fixture(scope="module")
def server(adapters: dict[str, Path]) -> Iterator[ModelServer]:
    settings = ServerSettings(embedder_name="base", reranker_name="base-reranker")
    common: dict[str, Any] = {"device": "cpu", "policy": SERVER_POLICY}
    embedders = {name: Embedder("tiny", adapter=adapters[name], **common) for name in ("invoices", "photos")}
    rerankers = {"strict": Reranker("tiny", adapter=adapters["strict"], **common)}
    embedder, reranker = Embedder("tiny", **common), Reranker("tiny", **common)
    # The vision tower is the same in all of them.
    assert len({id(each.engine.model.visual) for each in (embedder, *embedders.values())}) == 1
    app = create_app(embedder=embedder, reranker=reranker, embedders=embedders, rerankers=rerankers, settings=settings)
    with ModelServer(app) as server:
        yield server
    models: list[Embedder | Reranker] = [embedder, reranker, *embedders.values(), *rerankers.values()]
    for model in models:
        model.close()


@pytest.mark.parametrize("name", ["base", "invoices", "photos"])
def test_embeddings_of_each_name(name: str, server: ModelServer, adapters: dict[str, Path]) -> None:
    with Embedder("tiny", adapter=adapters.get(name), device="cpu") as embedder:
        expected = embedder.embed(QUERY)[0]
        digest = embedder.recipe.digest
    answer = server.answer("/v1/embeddings", {"model": name, "input": QUERY})
    assert_close(answer["data"][0]["embedding"], expected)
    assert answer["model"] == name
    native = server.answer("/qwen3vl/embed", {"model": name, "inputs": [QUERY], "digest": digest})
    assert native["digest"] == digest
    assert native["recipe"]["model"] == name
    assert "adapter" not in native["recipe"]  # a folder is nobody else's business


@pytest.mark.parametrize("name", ["base-reranker", "strict"])
def test_scores_of_each_name(name: str, server: ModelServer, adapters: dict[str, Path]) -> None:
    with Reranker("tiny", adapter=adapters.get(name), device="cpu") as reranker:
        expected = reranker.score(QUERY, DOCUMENTS)
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = server.answer(path, {"model": name, "query": QUERY, "documents": DOCUMENTS})
        scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
        assert_close([scores[0], scores[1]], expected)


def test_names_are_listed_and_others_refused(server: ModelServer) -> None:
    models = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert {model["id"]: model["kinds"] for model in models} == {
        "base": ["embedder"],
        "base-reranker": ["reranker"],
        "invoices": ["embedder"],
        "photos": ["embedder"],
        "strict": ["reranker"],
    }
    for path, body in (
        ("/v1/embeddings", {"model": "strict", "input": QUERY}),
        ("/v1/rerank", {"model": "photos", "query": QUERY, "documents": DOCUMENTS}),
    ):
        answer = httpx.post(f"{server.url}{path}", json=body)
        assert answer.status_code == 404
        assert "of this server is 'base" in answer.json()["error"]["message"]
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'qwen3vl_engine_items_total{model="embedder/photos"}' in metrics


@pytest.mark.parametrize("name", [None, "invoices", "photos"])
def test_client_chooses_an_adapter(name: str | None, server: ModelServer, adapters: dict[str, Path]) -> None:
    local = Embedder("tiny", adapter=adapters.get(name or ""), device="cpu")
    with local, Embedder(server.url, adapter=name) as remote:
        assert_close(remote.embed(QUERY), local.embed(QUERY))
        assert remote.recipe.digest == local.recipe.digest
        assert (remote.recipe.model, remote.recipe.adapter) == ("base", name)


@pytest.mark.parametrize("name", [None, "strict"])
def test_client_chooses_an_adapter_of_the_reranker(
    name: str | None, server: ModelServer, adapters: dict[str, Path]
) -> None:
    local = Reranker("tiny", adapter=adapters.get(name or ""), device="cpu")
    with local, Reranker(server.url, adapter=name) as remote:
        assert_close(remote.score(QUERY, DOCUMENTS), local.score(QUERY, DOCUMENTS))


def test_client_names_the_adapters_of_a_server_without_the_wanted_one(server: ModelServer) -> None:
    message = r"no adapter 'strict' of its embedding model, it serves 'invoices', 'photos': .* --adapter NAME=LOCATION"
    with pytest.raises(ModelError, match=message):
        Embedder(server.url, adapter="strict")
    with pytest.raises(
        ModelError, match=r"no adapter 'photos' of its reranker, it serves 'strict': .* --reranker-adapter"
    ):
        Reranker(server.url, adapter="photos")
    with pytest.raises(ValueError, match="adapter: for a model that runs in this process"):
        Embedder("vllm+http://localhost:1", adapter="photos")


def test_adapters_by_name_on_the_command_line_and_in_frameworks(
    server: ModelServer, adapters: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_scenes(tmp_path / "photos", 2)
    store, model = ["--store", str(tmp_path / "store")], ["--model", server.url]
    assert main(["index", str(tmp_path / "photos"), *store, *model, "--adapter", "invoices"]) == 0
    search = ["search", QUERY, *store, *model]
    assert main([*search, "--adapter", "invoices", "--rerank", "--reranker-adapter", "strict"]) == 0
    capsys.readouterr()
    assert main(search) == 2
    assert "'base' with the adapter 'invoices' there" in " ".join(capsys.readouterr().out.split())
    with Embedder("tiny", adapter=adapters["photos"], device="cpu") as embedder:
        embeddings = Qwen3VLEmbeddings(model=server.url, adapter="photos")
        assert_close(embeddings.embed_query(QUERY), embedder.embed(QUERY)[0])


def test_documented_code_runs(adapters: dict[str, Path], server: ModelServer) -> None:
    """The section of docs/adapters.md about servers: its names are those of this server."""
    section = read("docs/adapters.md").partition("## In a server")[2].partition("\n## ")[0]
    command, code = re.findall(r"```(?:sh|python)\n(.*?)```", section, re.DOTALL)
    assert parse_adapters(re.findall(r"--adapter (\S+)", command)).keys() <= adapters.keys()
    namespace: dict[str, Any] = {}
    exec(compile(code.replace("http://localhost:8000", server.url), "docs/adapters.md", "exec"), namespace)
    with Embedder("tiny", adapter=adapters["invoices"], device="cpu") as embedder:
        assert_close(namespace["vectors"], embedder.embed("a red circle"))


def test_two_models_of_one_name_are_refused(adapters: dict[str, Path]) -> None:
    with Embedder("tiny", device="cpu", policy=SERVER_POLICY) as embedder:
        with pytest.raises(ValueError, match="two models of the server have the name 'tiny'"):
            create_app(embedder=embedder, embedders={"tiny": embedder})
        with pytest.raises(ValueError, match="photos: further models need a first one; pass embedder"):
            create_app(embedders={"photos": embedder})


@pytest.mark.slow
@needs_entry_point
def test_command_serves_adapters_by_name(adapters: dict[str, Path]) -> None:
    embedders = [f"--adapter={name}={adapters[name]}" for name in ("photos", "invoices")]
    reranker = f"--reranker-adapter=photos={adapters['strict']}"
    with ServerProcess("--embedder", "tiny", "--reranker", "tiny", *embedders, reranker) as process:
        process.wait_until_ready()
        answers = [
            httpx.post(f"{process.url}/v1/embeddings", json={"model": name, "input": QUERY}, timeout=120).json()
            for name in ("tiny", "photos", "invoices")
        ]
        score = httpx.post(
            f"{process.url}/v1/rerank", json={"model": "photos", "query": QUERY, "documents": DOCUMENTS}, timeout=120
        )
    vectors = np.array([answer["data"][0]["embedding"] for answer in answers])
    assert (vectors @ vectors.T)[np.triu_indices(3, 1)].max() < 0.999
    with Embedder("tiny", adapter=adapters["photos"], device="cpu") as embedder:
        assert_close(vectors[1], embedder.embed(QUERY)[0])
    assert score.status_code == 200


@needs_entry_point
def test_wrong_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--embedder", "tiny", "--adapter", "photos"]) == 2
    assert "photos names no adapter; write NAME=FOLDER" in " ".join(capsys.readouterr().out.split())
    assert main(["serve", "--reranker", "tiny", "--adapter", "photos=photos"]) == 2
    assert "--adapter needs the model that it belongs to" in " ".join(capsys.readouterr().out.split())
