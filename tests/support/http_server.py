"""A small HTTP server for tests of fetching."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.support import http_thread


class Server:
    """Serves fixed responses on the loopback address.

    `pages` maps a path to (status, headers, body); `byte_delays` maps a path to the seconds between the bytes of its
    body. `requested_paths` records every request.
    """

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.byte_delays: dict[str, float] = {}
        self.requested_paths: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requested_paths.append(self.path)
                status, headers, body = server.pages.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                byte_delay = server.byte_delays.get(self.path)
                try:
                    if byte_delay is None:
                        self.wfile.write(body)
                    else:
                        for index in range(len(body)):
                            time.sleep(byte_delay)
                            self.wfile.write(body[index : index + 1])
                            self.wfile.flush()
                except OSError:
                    pass  # the client closed the connection, as it should

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        return self._server.server_port

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        http_thread.start(self._server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
