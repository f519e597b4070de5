"""Python's HTTP servers in threads of the tests."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer

POLL_S = 0.01
"""How often a server looks whether it has to stop; `shutdown` waits for that. Python's default is half a second."""


def start(server: ThreadingHTTPServer) -> None:
    """Serve in a thread until `server.shutdown` is called."""
    threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
