"""`qwen3vl serve`: a process, from its start to SIGTERM, and its errors."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from socket import create_connection, socket
from urllib.parse import urlsplit

import httpx
import pytest
from qwen3vl_server.http_protocol import MAX_HEAD_BYTES

from qwen3vl.cli import extensions, main
from tests.support.model_server import wait_until

needs_entry_point = pytest.mark.skipif(
    not entry_points(group=extensions.ENTRY_POINT_GROUP, name="serve"), reason="qwen3vl-server is not installed"
)


@needs_entry_point
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_answers_accepted_requests_and_ends_with_0() -> None:
    command = [sys.executable, "-m", "qwen3vl", "serve", "--embedder", "tiny", "--device", "cpu", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("serving at ").strip()
            with create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30) as connection:
                connection.sendall(b"GET /".ljust(MAX_HEAD_BYTES + 1, b"a"))
                assert connection.recv(1000).startswith(b"HTTP/1.1 431 ")
            texts = [f"{'word ' * 100} {number}" for number in range(300)]
            with ThreadPoolExecutor(1) as threads:
                accepted = threads.submit(httpx.post, f"{url}/v1/embeddings", json={"input": texts}, timeout=120)
                wait_until(lambda: "qwen3vl_waiting_items 300.0" in httpx.get(f"{url}/metrics").text)
                process.send_signal(signal.SIGTERM)
                assert len(accepted.result().json()["data"]) == 300
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert out == "stopped\n"
    assert "path=/v1/embeddings status=200" in err
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


@needs_entry_point
def test_what_cannot_be_served_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"]) == 2
    assert "name a model to serve" in capsys.readouterr().out
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--embedder", "tiny", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in " ".join(capsys.readouterr().out.split())
    assert main(["serve", "--embedder", "tiny", "--api-key", "two words"]) == 2
    assert "api_keys has a key" in capsys.readouterr().out
    assert main(["serve", "--embedder", "no-such-folder", "--port", "0", "--host", "0.0.0.0"]) == 2
    out = capsys.readouterr().out
    assert "everybody who reaches 0.0.0.0" in out
    assert "neither a folder nor a hub id" in out


@needs_entry_point
@pytest.mark.parametrize(
    ("store", "reason"),
    [(":memory:", "Collection name cannot contain '/' char"), ("chroma::memory:", "Expected a name containing")],
)
def test_name_that_the_database_refuses_is_an_error_of_the_command(
    store: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--store", store, "--collection", "a/b", "--embedder", "tiny", "--device", "cpu", "--port", "0"]
    assert main(["serve", *options]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "collection 'a/b'" in out
    assert reason in out


def test_command_of_an_integration_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extensions, "entry_points", lambda group: [])
    assert main(["serve", "--embedder", "tiny"]) == 2
    assert "pip install . ./integrations/server" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert main(["--help"]) == 0
    assert " serve " not in capsys.readouterr().out
    assert main(["no-such-command"]) == 2
