"""A server of ours in a thread, and inputs as clients send them."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn
from fastapi import FastAPI
from qwen3vl_server.http_protocol import http_protocol


class ServerClient:
    """Sends requests to a server, wherever it runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=120)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = json.dumps(body)  # with escapes, as lone surrogates need
        return self.client.post(path, content=content, headers={"Content-Type": "application/json", **headers})

    def answer(self, path: str, body: Any) -> Any:
        """Return the body of an answer with status 200."""
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()


class ModelServer(ServerClient):
    """Serves an application at a free port of this machine, perhaps for a proxy that has it below a path."""

    def __init__(self, app: FastAPI, root_path: str = "") -> None:
        self.app = app
        self._socket = socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{self.port}")
        config = uvicorn.Config(app, http=http_protocol(), log_config=None, access_log=False, root_path=root_path)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def waiting_items(self) -> int:
        return int(self.app.state.service.waiting_items.used)

    def wait_for_items(self, count: int) -> None:
        """Wait until the requests that are being answered have so many items."""
        wait_until(lambda: self.waiting_items == count)

    def stop(self) -> None:
        """Stop as SIGTERM does."""
        self._server.should_exit = True

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()
        self.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Wait until a condition holds, for so many seconds at most."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def data_uri(path: Path | str) -> str:
    """Return a file as a data URI."""
    path = Path(path)
    media_type = "video/mp4" if path.suffix == ".mp4" else "image/png"
    return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode()}"


def as_sent(case: dict[str, Any]) -> dict[str, Any]:
    """Return an input with its paths replaced by data URIs."""

    def to_uris(value: Any) -> Any:
        return [to_uris(path) for path in value] if isinstance(value, list) else data_uri(value)

    return {key: to_uris(value) if key in ("image", "video") else value for key, value in case.items()}
