"""Servers of stores that ask for a key get the one in the environment, and no configuration has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qwen3vl import StoreError, open_store
from tests.support import http_thread, qdrant_rest

KEY = "a-long-random-key"


@pytest.fixture
def refusing_server() -> Iterator[tuple[str, list[str | None]]]:
    """The address of a server that refuses all requests as Chroma's do, and the keys that it has got."""
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("X-Chroma-Token"))
            answer = json.dumps({"error": "AuthError", "message": "no valid key"}).encode()
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_thread.start(server)
    yield f"http://127.0.0.1:{server.server_port}", keys
    server.shutdown()
    server.server_close()


def test_chroma_gets_the_key_of_the_environment(
    refusing_server: tuple[str, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, keys = refusing_server
    with pytest.raises(StoreError):
        open_store(f"chroma:{url}")
    assert set(keys) == {None}
    keys.clear()
    monkeypatch.setenv("CHROMA_API_KEY", KEY)
    with pytest.raises(StoreError):
        open_store(f"chroma:{url}")
    assert set(keys) == {KEY}


@pytest.mark.filterwarnings("ignore:Failed to obtain server version", "ignore:Api key is used with an insecure")
def test_qdrant_gets_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with qdrant_rest.serve(KEY) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(StoreError, match="rejects the credentials"):
            open_store(url).recipe()
        monkeypatch.setenv("QDRANT_API_KEY", KEY)
        assert open_store(url).recipe() is None
