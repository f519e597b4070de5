"""What a client is opened with: URLs, keys and settings, and which servers it accepts."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Embedder, ModelError, RecipeError, Reranker, ServerError
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer

KEY = "a-long-random-key"


def test_model_of_another_server_is_served(server: ModelServer, tiny_embedder: Embedder) -> None:
    with Embedder(server.url) as behind, pytest.raises(ValueError, match="the media policy of the embedder"):
        create_app(embedder=behind)
    with (
        Embedder(server.url, policy=SERVER_POLICY) as behind,
        ModelServer(create_app(embedder=behind)) as gateway,
        Embedder(gateway.url) as embedder,
    ):
        assert embedder.recipe.digest == tiny_embedder.recipe.digest
        inputs: list[Any] = ["a text", Image.new("RGB", (64, 64), "red"), ""]
        remote, local = (model.embed(inputs, on_error="collect") for model in (embedder, tiny_embedder))
        assert_close(remote.values[:2], local.values[:2])
        assert [str(error) for error in remote.errors] == [str(error) for error in local.errors]
        assert "qwen3vl_engine" not in gateway.client.get("/metrics").text


def test_engine_is_in_the_server(server: ModelServer) -> None:
    with Embedder(server.url) as embedder:
        assert not hasattr(embedder, "engine")
        with pytest.raises(AttributeError, match=f"{server.url}; its /metrics has the statistics"):
            _ = embedder.engine


def test_api_key(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN3VL_API_KEY", raising=False)
    with ModelServer(create_app(**models, settings=ServerSettings(api_keys=(KEY, "another")))) as server:
        for key in (None, "wrong"):
            with pytest.raises(
                ServerError, match=r"refuses the API key.*pass api_key, or set QWEN3VL_API_KEY"
            ) as caught:
                Embedder(server.url, api_key=key)
            assert caught.value.status == 401
        with Embedder(server.url, api_key=KEY) as embedder:
            assert embedder.embed(["a"]).shape == (1, 128)
            assert KEY not in repr(embedder.backend._settings)  # type: ignore[attr-defined]
        monkeypatch.setenv("QWEN3VL_API_KEY", f"{KEY} another")
        with Reranker(server.url) as reranker:
            assert reranker.score("a", ["b"]).shape == (1,)


@pytest.mark.parametrize("key", ["a key", f"{KEY}\n", "ключ"])
def test_key_that_cannot_be_sent_is_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match=r"api_key has spaces, line breaks.*strip") as caught:
        Embedder("http://127.0.0.1:9", api_key=key)
    assert key.strip() not in str(caught.value)


def test_settings_of_the_other_kind_are_refused(server: ModelServer) -> None:
    with pytest.raises(
        ValueError, match=r"device, dtype: for a model that runs in this process, and http://.*leave it out"
    ):
        Embedder(server.url, device="cuda", dtype="bfloat16")
    with pytest.raises(ValueError, match="revision"):
        Reranker(server.url, revision="main")
    with pytest.raises(ValueError, match=r"api_key, timeout_s: for a server, and tiny runs in this process"):
        Embedder("tiny", api_key="key", timeout_s=3)
    with pytest.raises(ValueError, match=r"max_length is 512, and that of the server is 8192"):
        Embedder(server.url, max_length=512)
    with pytest.raises(ValueError, match=r"dimensions is 300; it must be between 1 and 128"):
        Embedder(server.url, dimensions=300)
    with pytest.raises(ValueError, match="timeout_s is 0"):
        Embedder(server.url, timeout_s=0)
    with pytest.raises(TypeError, match="unknown settings: colour"):
        Embedder(server.url, colour="red")  # type: ignore[call-arg]
    Embedder(server.url, device="auto", dtype="auto", max_length=8192, fps=1, max_pixels=None).close()
    Reranker(server.url, max_length=10240).close()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("http://", "is no URL of a server"),
        ("http://user:password@host", "'host' is no URL of a server"),
        ("http://host/?key=1", "is no URL of a server"),
        ("http://host:port", "Port could not be cast"),
        (["http://host", "tiny"], "'tiny' is no URL of a server"),
        (["tiny", "tiny"], "is no model"),
        ("http://127.0.0.1:9,", "'' is no URL of a server"),
    ],
)
def test_names_that_are_no_urls_of_servers(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Embedder(model)


def test_what_is_no_server_of_this_package(server: ModelServer, models: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=r"GET /v1/qwen3vl/models is answered with status 404.*without /v1|answers"):
        Embedder(f"{server.url}/v1")
    with pytest.raises(ServerError, match=r"cannot be reached.*\(1 attempts\). Check the address"):
        Embedder("http://127.0.0.1:9", max_retries=0)
    with ModelServer(create_app(reranker=models["reranker"])) as other:
        with pytest.raises(ModelError, match=r"has no embedding model; start it with `qwen3vl serve --embedder MODEL`"):
            Embedder(other.url)
        with pytest.raises(ModelError, match="has no embedding model"):
            Embedder([server.url, other.url])


def test_servers_of_one_object_have_one_recipe(server: ModelServer, golden_server: ModelServer) -> None:
    with pytest.raises(RecipeError, match=r"has another model or other settings than .*: weights is '.*max_pixels is"):
        Embedder(f"{server.url}, {golden_server.url}")
