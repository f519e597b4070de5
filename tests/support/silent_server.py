"""A server that accepts connections and never answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield the port of a server that reads nothing and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as connections:

        def accept() -> None:
            while True:
                try:
                    connections.enter_context(server.accept()[0])
                except OSError:  # closed at the end of the test
                    return

        thread = Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
