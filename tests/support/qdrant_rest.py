"""The part of Qdrant's REST interface that a store uses, over the client's embedded engine.

It replaces a server in tests of what happens on the wire.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qdrant_client import QdrantClient, models

from tests.support import http_thread


class RestRoutes:
    """The routes, over a client in memory."""

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.lock = threading.Lock()
        self.hnsw: dict[str, Any] = {}
        """What clients have set, by collection."""

    def answer(self, method: str, path: str, body: Any) -> Any:
        parts = path.partition("?")[0].strip("/").split("/")
        name, action = parts[1] if len(parts) > 1 else "", "/".join(parts[2:])
        routes: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", "exists"): lambda: {"exists": self.client.collection_exists(name)},
            ("GET", ""): lambda: self._collection(name),
            ("PUT", ""): lambda: self._create(name, body),
            ("DELETE", ""): lambda: self.client.delete_collection(name),
            ("PATCH", ""): lambda: self._update(name, body),
            ("PUT", "index"): lambda: _completed(),
            ("PUT", "points"): lambda: self._upsert(name, body),
            ("POST", "points"): lambda: self.client.retrieve(
                name, body["ids"], with_payload=body["with_payload"], with_vectors=body["with_vector"]
            ),
            ("POST", "points/delete"): lambda: self.client.delete(name, _selector(body)),
            ("POST", "points/count"): lambda: self.client.count(name, models.CountRequest(**body).filter),
            ("POST", "points/scroll"): lambda: self._scroll(name, body),
            ("POST", "points/query/groups"): lambda: self._groups(name, models.QueryGroupsRequest(**body)),
            ("POST", "points/query/batch"): lambda: self.client.query_batch_points(
                name, [models.QueryRequest(**search) for search in body["searches"]]
            ),
        }
        with self.lock:
            return routes[method, action]()

    def _create(self, name: str, body: Any) -> bool:
        self.hnsw[name] = body.get("hnsw_config") or {}
        return self.client.create_collection(
            name,
            **_arguments(
                models.CreateCollection(**body),
                vectors="vectors_config",
                sparse_vectors="sparse_vectors_config",
                metadata="metadata",
            ),
        )

    def _update(self, name: str, body: Any) -> bool:
        """Change metadata, and record a change of the HNSW graph, which the embedded engine does not have."""
        self.hnsw[name] = {**self.hnsw[name], **body.get("hnsw_config", {})}
        return self.client.update_collection(name, metadata=body.get("metadata"))

    def _collection(self, name: str) -> Any:
        info = self.client.get_collection(name)
        changes = self.hnsw.get(name, {})
        hnsw = info.config.hnsw_config.model_copy(update=changes)
        return info.model_copy(update={"config": info.config.model_copy(update={"hnsw_config": hnsw})})

    def _upsert(self, name: str, body: Any) -> Any:
        return self.client.upsert(name, [models.PointStruct(**point) for point in body["points"]])

    def _groups(self, name: str, request: models.QueryGroupsRequest) -> Any:
        return self.client.query_points_groups(
            name,
            query=request.query,
            using=request.using,
            query_filter=request.filter,
            group_by=request.group_by,
            limit=request.limit or 10,
            group_size=request.group_size or 1,
            with_payload=True,
        )

    def _scroll(self, name: str, body: Any) -> Any:
        points, next_offset = self.client.scroll(
            name, limit=body["limit"], offset=body.get("offset"), with_payload=True
        )
        return {"points": points, "next_page_offset": next_offset}


def _arguments(request: Any, **names: str) -> dict[str, Any]:
    """Fields of a request under the names that the client's method gives them."""
    return {argument: getattr(request, field) for field, argument in names.items()}


def _selector(body: Any) -> Any:
    if "filter" in body:
        return models.FilterSelector(filter=models.Filter(**body["filter"]))
    return models.PointIdsList(points=body["points"])


def _completed() -> models.UpdateResult:
    return models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


@contextmanager
def serve(api_key: str | None = None) -> Iterator[int]:
    """Serve the interface on this machine, perhaps with a key that each request has to have; yields the port."""
    routes = RestRoutes()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or "null")
            try:
                if api_key is not None and self.headers.get("api-key") != api_key:
                    raise PermissionError
                status, answer = 200, {"result": _to_json(routes.answer(self.command, self.path, body)), "status": "ok"}
            except PermissionError:
                status, answer = 401, {"status": {"error": "no valid key"}}
            except Exception as error:
                status, answer = 400, {"status": {"error": re.sub(r"\s+", " ", repr(error))}}
            data = json.dumps({**answer, "time": 0.0}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_thread.start(server)
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
