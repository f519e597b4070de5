"""Python's HTTP servers in threads of the tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

POLL_S = 0.01
"""How often a server looks whether it has to stop; `shutdown` waits for that. Python's default is half a second."""


def start(server: ThreadingHTTPServer) -> None:
    """Serve in a thread until `server.shutdown` is called."""
    threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()


@contextmanager
def serve_folder(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the files of a folder at the loopback address.

    Args:
        folder: The folder.

    Yields:
        The server's address, and the paths that were requested.
    """
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            requests.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        start(server)
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
