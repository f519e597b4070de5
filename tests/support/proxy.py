"""A proxy in front of a server: it has the server below a path, or drops, delays, rejects and truncates messages."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from random import Random
from typing import Any, Self

from tests.support import http_thread

FAULTS = ("drop", "lose", "cut", "delay", "429", "500", "503")
"""The connection is closed before the request is forwarded, after the server has answered, or within the answer; the
answer is late; or it is an error. A test may also ask for "stall": no answer comes within the client's timeout.
"""


class Proxy:
    """Listens on a port of its own.

    `choose` returns the fault for a request's method and path, "" for none. With a `root_path`, only requests below it
    are forwarded, without it.
    """

    def __init__(self, port: int, choose: Callable[[str, str], str] = lambda *_: "", root_path: str = "") -> None:
        self.faults: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = choose(self.command, self.path)
                proxy.faults[fault] += 1
                self.close_connection = True
                if fault == "drop":
                    return
                if fault.isdecimal():
                    answer = json.dumps({"error": "injected", "status": {"error": "injected by a test"}}).encode()
                    self.answer(int(fault), {"Content-Type": "application/json"}, answer)
                    return
                if fault == "stall":
                    time.sleep(3)
                    return
                if fault == "delay":
                    time.sleep(0.3)
                if not self.path.startswith(f"{root_path}/"):
                    self.answer(404, {}, b"")
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                upstream.request(self.command, self.path.removeprefix(root_path), body, dict(self.headers))
                response = upstream.getresponse()
                answer = response.read()
                upstream.close()
                if fault == "lose":
                    return
                passed_on = ("content-type", "location")
                headers = {name: value for name, value in response.getheaders() if name.lower() in passed_on}
                self.answer(response.status, headers, answer, truncated=fault == "cut")

            def answer(self, status: int, headers: dict[str, str], body: bytes, *, truncated: bool = False) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if truncated else body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = forward  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])

    def __enter__(self) -> Self:
        http_thread.start(self.server)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def random_faults(share: float, seed: int, path_part: str = "") -> Callable[[str, str], str]:
    """All faults in turn, for a random share of the requests whose path contains `path_part`."""
    random, lock, faults = Random(seed), threading.Lock(), cycle(FAULTS)

    def choose(_: str, path: str) -> str:
        with lock:
            return next(faults) if path_part in path and random.random() < share else ""

    return choose
