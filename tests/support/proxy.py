"""A proxy before a real server that loses, delays, refuses and cuts what passes through it."""

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

FAULTS = ("drop", "lose", "cut", "delay", "429", "500", "503")
"""Closed before the server hears of it; after it answered; in the middle of the answer; late; and refusals.

Beside these a test may ask for "stall": nothing comes for longer than its client waits.
"""


class Proxy:
    """Listens on a port of its own.  `choose` names a fault, or "" for none, for each request's method and path."""

    def __init__(self, port: int, choose: Callable[[str, str], str]) -> None:
        self.faults: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = choose(self.command, self.path)
                proxy.faults[fault] += 1
                self.close_connection = True
                if fault == "drop":
                    return
                if fault.isdecimal():
                    told = json.dumps({"error": "trouble", "status": {"error": "made for a test"}}).encode()
                    self.answer(int(fault), {"Content-Type": "application/json"}, told)
                    return
                if fault == "stall":
                    time.sleep(3)
                    return
                if fault == "delay":
                    time.sleep(0.3)
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers))
                response = upstream.getresponse()
                told = response.read()
                upstream.close()
                if fault == "lose":
                    return
                kept = {name: value for name, value in response.getheaders() if name.lower() == "content-type"}
                self.answer(response.status, kept, told, cut=fault == "cut")

            def answer(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if cut else body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = pass_on  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def sometimes(share: float, seed: int, only: str = "") -> Callable[[str, str], str]:
    """Each fault in its turn, for a share of the requests whose path holds `only`."""
    random, lock, faults = Random(seed), threading.Lock(), cycle(FAULTS)

    def choose(_: str, path: str) -> str:
        with lock:
            return next(faults) if only in path and random.random() < share else ""

    return choose
