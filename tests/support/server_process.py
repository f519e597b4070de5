"""`qwen3vl serve` as a process that can be killed and started again."""

from __future__ import annotations

import subprocess
import sys
from socket import socket
from types import TracebackType
from typing import Self

import httpx

from tests.support.model_server import wait_until


class ServerProcess:
    """Serves the tiny models, at one port of this machine however often it is started."""

    def __init__(self, *options: str) -> None:
        with socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options or ("--embedder", "tiny", "--reranker", "tiny")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start the process, without waiting until it serves."""
        command = [sys.executable, "-m", "qwen3vl", "serve", "--device", "cpu", "--port", str(self.port)]
        self._is_as_first = not options
        self._process = subprocess.Popen(
            [*command, *(options or self._options)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def restore(self) -> None:
        """Start the process again if it was killed, or was started with other options."""
        assert self._process is not None
        if self._process.poll() is not None or not self._is_as_first:
            self.kill()
            self.start()

    def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, 300)  # torch is imported, which other processes can make slow

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
