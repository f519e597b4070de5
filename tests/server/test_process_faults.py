"""`qwen3vl serve` as a process: uploads that are slow, cut or too large, clients that leave, SIGTERM under load."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from socket import SHUT_WR, create_connection, socket

import httpx
import pytest

from tests.server.test_serve import needs_entry_point
from tests.support.model_server import wait_until

pytestmark = [
    needs_entry_point,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM"),
]
TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Served:
    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics", timeout=60).text

    def wait_for_metric(self, line: str) -> None:
        wait_until(lambda: line in self.metrics())

    def wait_for_vectors(self) -> None:
        """Wait until a request is answered; on a busy machine, even a short one may take longer than TIMEOUT_S."""
        wait_until(lambda: httpx.post(f"{self.url}/v1/embeddings", json={"input": "a"}, timeout=60).status_code == 200)


@contextmanager
def serve(*options: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "qwen3vl", "serve", "--embedder", "tiny", "--device", "cpu", "--port", "0"]
    command.extend(options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield Served(process, process.stdout.readline().removeprefix("serving at ").strip())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serve("--timeout", str(TIMEOUT_S), "--max-body", "1") as served:
        yield served


def send_part(connection: socket, body: bytes, sent: int, announced: int | None = None) -> None:
    """Send the head of a request and the first bytes of its body."""
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {announced or len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body[:sent])


def receive(connection: socket) -> bytes:
    """Return all that the server sends before it closes the connection."""
    connection.settimeout(60)
    chunks = []
    try:
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:  # it closes with bytes of an upload unread
        pass
    return b"".join(chunks)


BODY = json.dumps({"input": "word " * 1000}).encode()


def test_upload_that_is_slow_gets_408(served: Served) -> None:
    """Each byte comes in time, and the whole does not."""
    with create_connection(("127.0.0.1", served.port)) as connection:
        send_part(connection, BODY, 100)
        end = time.monotonic() + TIMEOUT_S + 1
        position = 100
        while time.monotonic() < end:
            time.sleep(0.05)
            try:
                connection.sendall(BODY[position : position + 1])
            except OSError:
                break
            position += 1
        assert position < len(BODY)
        answer = receive(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 408 ")  # empty if the reset overtakes the answer
    served.wait_for_metric('qwen3vl_requests_total{path="/v1/embeddings",status="408"} 1.0')
    served.wait_for_vectors()


@pytest.mark.parametrize("half_closed", [False, True])
def test_upload_that_is_cut_computes_nothing(served: Served, half_closed: bool) -> None:
    served.wait_for_metric("qwen3vl_waiting_items 0.0")
    items = engine_items(served)
    for sent in (0, 1, len(BODY) - 1):
        with create_connection(("127.0.0.1", served.port)) as connection:
            send_part(connection, BODY, sent)
            if half_closed:
                connection.shutdown(SHUT_WR)
                assert not receive(connection)
    served.wait_for_metric("qwen3vl_waiting_bytes 0.0")
    assert engine_items(served) == items
    served.wait_for_vectors()


def engine_items(served: Served) -> str:
    return next(line for line in served.metrics().splitlines() if line.startswith("qwen3vl_engine_items_total"))


def test_upload_that_is_too_large_is_refused_before_it_comes(served: Served) -> None:
    with create_connection(("127.0.0.1", served.port)) as connection:
        send_part(connection, BODY, 10, announced=10**12)
        assert receive(connection).startswith(b"HTTP/1.1 413 ")
    served.wait_for_vectors()


def test_work_for_a_client_that_left_is_dropped() -> None:
    texts = [f"{'word ' * 200} {number}" for number in range(2000)]
    body = json.dumps({"input": texts}).encode()
    with serve() as served:
        with create_connection(("127.0.0.1", served.port)) as connection:
            send_part(connection, body, len(body))
            served.wait_for_metric("qwen3vl_waiting_items 2000.0")
        served.wait_for_metric("qwen3vl_waiting_items 0.0")
        assert 'qwen3vl_requests_total{path="/v1/embeddings",status="499"} 1.0' in served.metrics()
        assert float(engine_items(served).split()[1]) < 2000
        served.wait_for_vectors()


def test_sigterm_under_load_answers_all_accepted_requests() -> None:
    """Requests that wait in the queue, and one whose upload has begun."""
    texts = [f"{'word ' * 100} {number}" for number in range(25)]
    with serve() as served, ThreadPoolExecutor(8) as clients:
        post = [
            clients.submit(httpx.post, f"{served.url}/v1/embeddings", json={"input": texts}, timeout=300)
            for _ in range(8)
        ]
        with create_connection(("127.0.0.1", served.port)) as uploading:
            send_part(uploading, BODY, len(BODY) // 2)
            served.wait_for_metric("qwen3vl_waiting_items 200.0")
            served.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not accepts(served.port))
            uploading.sendall(BODY[len(BODY) // 2 :])
            assert receive(uploading).startswith(b"HTTP/1.1 200 ")
        answers = [future.result() for future in post]
        assert [len(answer.json()["data"]) for answer in answers] == [25] * 8
        assert served.process.wait(60) == 0


def accepts(port: int) -> bool:
    try:
        create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
