"""`qwen3vl doctor --url`: what it finds at real servers, and at what is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Embedder
from qwen3vl.cli import main
from tests.support.model_server import ModelServer


def run(capsys: pytest.CaptureFixture[str], url: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the findings by their subjects."""
    code = main(["doctor", "--url", url, "--json"])
    return code, {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}


@contextmanager
def serve_embedder(**settings: Any) -> Iterator[ModelServer]:
    with (
        Embedder("tiny", device="cpu", policy=SERVER_POLICY) as embedder,
        ModelServer(create_app(embedder=embedder, settings=ServerSettings(**settings))) as server,
    ):
        yield server


def test_server_without_faults(tiny_server: ModelServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = run(capsys, tiny_server.url + "/")
    assert code == 0
    assert findings["API key"]["state"] == "note"
    assert {finding["state"] for subject, finding in findings.items() if subject != "API key"} == {"ok"}
    assert findings["limits"]["details"].startswith("2048 inputs, 64 MiB and 300 s for a request, 32 MiB")
    with Embedder(tiny_server.url) as embedder:
        assert embedder.recipe.digest in findings["embedding model"]["details"]
    assert findings["embedding model"]["details"].startswith("embedding: ")
    assert "the same vector of 128 values" in findings["test of the embedding model"]["details"]
    assert "the same scores" in findings["test of the reranker"]["details"]
    assert main(["doctor", "--url", tiny_server.url]) == 0
    assert "test of the reranker" in capsys.readouterr().out


def test_keys_and_a_missing_reranker(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_embedder(api_keys=("secret",), timeout_s=7.5) as server:
        for variable, reason in (("", "has none"), ("wrong", "refuses the one")):
            monkeypatch.setenv("QWEN3VL_API_KEY", variable)
            code, findings = run(capsys, server.url)
            assert (code, findings["API key"]["state"], list(findings)[-1]) == (1, "wrong", "API key")
            assert reason in findings["API key"]["details"]
        monkeypatch.setenv("QWEN3VL_API_KEY", "secret")
        code, findings = run(capsys, server.url)
    assert (code, findings["API key"]["state"]) == (0, "ok")
    assert findings["reranker"]["state"] == "note"
    assert "7.5 s" in findings["limits"]["details"]


def test_closed_model_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with serve_embedder() as server:
        server.app.state.service.models["embedder"].model.close()
        code, findings = run(capsys, server.url)
    assert (code, findings["ready"]["state"]) == (1, "wrong")
    assert findings["test of the embedding model"]["state"] == "wrong"
    assert "status 503" in findings["test of the embedding model"]["details"]


def test_vectors_that_differ_are_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """The server embeds another text in every other request, as servers with different models would."""
    with serve_embedder() as server:
        service, texts = server.app.state.service, cycle(["a red circle on the left", "invoices of last year"])
        embed = service.embed

        async def embed_other(values: Any, **options: Any) -> Any:
            return await embed([next(texts)], **options)

        service.embed = embed_other
        code, findings = run(capsys, server.url)
    assert (code, findings["test of the embedding model"]["state"]) == (1, "wrong")
    assert "different vectors" in findings["test of the embedding model"]["details"]


def test_what_is_no_server(tiny_server: ModelServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = run(capsys, f"{tiny_server.url}/v1")
    assert (code, findings["description"]["state"]) == (1, "wrong")
    assert "without /v1" in findings["description"]["details"]

    app = FastAPI()
    app.add_api_route("/qwen3vl/models", lambda: JSONResponse({"limits": {}}))
    with ModelServer(app) as other:
        code, findings = run(capsys, other.url)
        assert (code, findings["version of qwen3vl"]["state"]) == (1, "note")
        assert "use the same one on both sides" in findings["description"]["details"]
    code, findings = run(capsys, other.url)
    assert (code, findings["server"]["state"]) == (1, "wrong")
    assert "cannot be reached" in findings["server"]["details"]
    for name in ("tiny", f"vllm+{other.url}", f"{other.url},http://127.0.0.1:1"):
        assert main(["doctor", "--url", name]) == 2
        assert "is not the URL of one server" in " ".join(capsys.readouterr().out.split())
