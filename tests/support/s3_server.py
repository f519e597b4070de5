"""What PyArrow asks of S3, to list and read the objects of a bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.http_thread import start

_DATE = "2024-01-01T00:00:00.000Z"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if "list-type" in query:
            self._answer(200, self._listing(bucket, query.get("prefix", ""), query.get("delimiter", "")))
        elif (content := self.server.objects.get(f"{bucket}/{key}")) is None:
            self._answer(404, b"")
        elif (span := self.headers.get("Range")) and content:
            first, last = span.removeprefix("bytes=").split("-")
            end = min(int(last or len(content)), len(content) - 1)
            self._answer(206, content[int(first) : end + 1], f"bytes {first}-{end}/{len(content)}")
        else:
            self._answer(200, content)

    def _listing(self, bucket: str, prefix: str, delimiter: str) -> bytes:
        entries: dict[str, None] = {}
        for name, content in self.server.objects.items():
            key = name.removeprefix(f"{bucket}/")
            if key == name or not key.startswith(prefix):
                continue
            folder, found, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
            if found:
                entries[f"<CommonPrefixes><Prefix>{escape(prefix + folder)}/</Prefix></CommonPrefixes>"] = None
            else:
                fields = f"<Key>{escape(key)}</Key><LastModified>{_DATE}</LastModified><Size>{len(content)}</Size>"
                entries[f"<Contents>{fields}</Contents>"] = None
        body = f"<KeyCount>{len(entries)}</KeyCount><IsTruncated>false</IsTruncated>{''.join(entries)}"
        return f'<?xml version="1.0"?><ListBucketResult>{body}</ListBucketResult>'.encode()

    def _answer(self, status: int, body: bytes, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    objects: Mapping[str, bytes]


@contextmanager
def serve_objects(objects: Mapping[str, bytes]) -> Iterator[str]:
    """Serve objects at the loopback address.

    Args:
        objects: The content of each, by bucket and key: `"bucket/folder/a.txt"`.

    Yields:
        Host and port.
    """
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.objects = objects
        start(server)
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
