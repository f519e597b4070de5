"""A server that answers as a vLLM server did: the requests that were recorded from it, and no others.

Texts come in batches of any size, so that each prompt is an exchange of its own. Images are recorded by a digest of
their pixels: the bytes of a PNG depend on the version of zlib.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from PIL import Image

from tests.support import http_thread
from tests.support.json_requests import read_json, send_json

_URL = re.compile(r"data:((?:image|video)/\w+);base64,(.+)")
_NOT_KEPT = ("id", "created", "permission", "owned_by", "parent", "object")


class RecordedServer:
    """Serves the exchanges in a file at a free port of this machine.

    `unknown_requests` has the requests that are not in it. If `source` is the URL of a real server, these are sent
    there and added to the file when the server ends.
    """

    def __init__(self, path: Path, source: str | None = None) -> None:
        self.unknown_requests: list[str] = []
        self._path = path
        self._source = source
        self._lock = threading.Lock()
        exchanges = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        self._answers = {_key(each["request"]): each for each in exchanges}
        recorded = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                send_json(self, *recorded.answer("GET", self.path, None))

            def do_POST(self) -> None:
                send_json(self, *recorded.answer("POST", self.path, read_json(self)))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Return the status and the object of the answer to a request."""
        if not isinstance(body, dict) or "input" not in body:
            return self._answer_one(method, path, body)
        answers = [self._answer_one(method, path, {**body, "input": [prompt]}) for prompt in body["input"]]
        for status, answer in answers:
            if status != 200:
                return status, answer
        data = [{**answer["data"][0], "index": index} for index, (_, answer) in enumerate(answers)]
        return 200, {
            "data": data,
            "usage": {"prompt_tokens": sum(each["usage"]["prompt_tokens"] for _, each in answers)},
        }

    def _answer_one(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        request = {"method": method, "path": path, "body": _without_pixels(body)}
        exchange = self._answers.get(_key(request))
        if exchange is None and self._source is not None:
            response = httpx.request(method, self._source + path, json=body, timeout=600)
            exchange = {"request": request, "status": response.status_code, "answer": _kept(response.json())}
            with self._lock:
                self._answers[_key(request)] = exchange
        if exchange is None:
            self.unknown_requests.append(_key(request))
            return 500, {"error": {"message": f"not recorded: {_key(request)[:2000]}"}}
        return exchange["status"], exchange["answer"]

    def __enter__(self) -> Self:
        http_thread.start(self._server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self._source is not None:
            lines = ",\n".join(json.dumps(self._answers[key], ensure_ascii=False) for key in sorted(self._answers))
            self._path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _key(request: Any) -> str:
    return json.dumps(request, sort_keys=True)


def _kept(answer: Any) -> Any:
    """Return an answer without what differs each time, or is of no use."""
    if isinstance(answer, list):
        return [_kept(value) for value in answer]
    if not isinstance(answer, dict):
        return answer
    names_model = "root" in answer
    return {
        name: _kept(value) for name, value in answer.items() if name not in _NOT_KEPT or (names_model and name == "id")
    }


def _without_pixels(value: Any) -> Any:
    """Return a request with the digests of pixels in place of data URIs."""
    if isinstance(value, dict):
        return {name: _without_pixels(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_pixels(each) for each in value]
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    return value if match is None else [match[1], *map(_digest, match[2].split(","))]


def _digest(encoded: str) -> str:
    image = Image.open(BytesIO(base64.b64decode(encoded)))
    return (
        f"{image.format} {image.mode} {image.width}x{image.height} {hashlib.sha256(image.tobytes()).hexdigest()[:32]}"
    )
