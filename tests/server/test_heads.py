"""Request lines, headers and trailers that are too large end their connections."""

from __future__ import annotations

import json
from socket import create_connection, socket

import pytest
from qwen3vl_server.http_protocol import MAX_HEAD_BYTES

from tests.support.model_server import ModelServer

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"input": "a"}'


def connect(server: ModelServer) -> socket:
    return create_connection(("127.0.0.1", server.port), timeout=30)


def read_answer(connection: socket) -> bytes:
    """Return what arrives until the server closes the connection."""
    answer = b""
    while part := connection.recv(2**16):
        answer += part
    return answer


@pytest.mark.parametrize(
    "head",
    [GET + b"X-Long: ", b"GET /", GET + b"X-1: 1\r\n" * 5000, GET + b"X"],
    ids=["header", "path", "headers", "name"],
)
def test_head_that_is_too_large_gets_431(tiny_server: ModelServer, head: bytes) -> None:
    with connect(tiny_server) as connection:
        # Not a byte more than is read before the answer: a connection with unread bytes is reset.
        connection.sendall(head + b"a" * (MAX_HEAD_BYTES + 1 - len(head)))
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"


def test_second_request_of_a_connection(tiny_server: ModelServer) -> None:
    with connect(tiny_server) as connection:
        connection.sendall(GET + b"\r\n")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")
        connection.sendall(GET + b"X-Long: " + b"a" * (MAX_HEAD_BYTES - 7 - len(GET)))
        assert b"HTTP/1.1 431 " in read_answer(connection)


def test_trailers_that_are_too_large_end_the_connection(tiny_server: ModelServer) -> None:
    with connect(tiny_server) as connection:
        try:
            connection.sendall(CHUNKED + b"%x\r\n%b\r\n0\r\nX-Long: " % (len(BODY), BODY))
            connection.sendall(b"a" * 2**20)
            assert read_answer(connection) == b""
        except ConnectionError:  # bytes were not read
            pass


def test_what_is_large_elsewhere_is_accepted(tiny_server: ModelServer) -> None:
    half = b"X-Long: " + b"a" * (MAX_HEAD_BYTES // 2 - 200) + b"\r\n"
    last = b"Connection: close\r\n"
    blanks = b"1\r\n \r\n" * MAX_HEAD_BYTES  # parts of one byte
    requests = [
        (GET + half, half.replace(b"Long", b"Other") + last + b"\r\n"),
        (POST + last + b"Content-Length: 300014\r\n\r\n", BODY, b" " * 300_000),
        (CHUNKED.replace(b"\r\n\r\n", b"\r\n" + last + b"\r\n"), b"e\r\n%b\r\n" % BODY, blanks, b"0\r\n\r\n"),
    ]
    for parts in requests:
        with connect(tiny_server) as connection:
            for part in parts:
                connection.sendall(part)
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
