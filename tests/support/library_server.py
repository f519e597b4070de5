"""A server with a store of the sample library, and the store's points by what they are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Embedder, MediaPolicy, Reranker, ingest, open_store
from qwen3vl.loaders import Loader
from tests.support import sample_library
from tests.support.model_server import ModelServer


@dataclass(frozen=True)
class LibraryServer:
    """The server, its store, and its folders."""

    server: ModelServer
    store: Any
    files: Path
    media: Path

    def point(self, name: str, locator: str = "") -> str:
        """Return the id of the point of a file, by the file's name and perhaps a locator."""
        return next(
            str(point.id)
            for point in self.store.scan()
            if Path(point.source).name == name and (not locator or point.locator == locator)
        )

    def search(self, **body: Any) -> Any:
        return self.server.answer("/v1/search", body)

    def upload(self, *files: tuple[str, bytes], data: dict[str, Any] | None = None) -> Any:
        """Upload files, wait until they are ingested, and return the finished job."""
        parts = [("file", (name, content)) for name, content in files]
        response = self.server.client.post("/v1/documents", files=parts, data=data or {})
        assert response.status_code == 202, response.text
        return self.finished(response.json()["id"])

    def finished(self, job_id: str) -> Any:
        give_up = time.monotonic() + 300
        while (job := self.server.client.get(f"/v1/documents/jobs/{job_id}").json())["status"] in (
            "waiting",
            "running",
        ):
            assert time.monotonic() < give_up
            time.sleep(0.02)
        return job

    def media_files(self) -> list[Path]:
        return [path for path in (self.media / "files").rglob("*") if path.is_file()]


@contextmanager
def serve_library(
    folder: Path,
    *,
    settings: ServerSettings | None = None,
    layout: Any = None,
    policy: MediaPolicy = SERVER_POLICY,
    reranked: bool = True,
    uploads: bool = True,
    root_path: str = "",
) -> Iterator[LibraryServer]:
    """Write and ingest the sample library below a folder, and serve it with the tiny models."""
    files, media = folder / "files", folder / "media"
    files.mkdir()
    sample_library.write(files)
    policy = replace(policy, folders=(files, media))
    with open_embedder(policy) as embedder, Reranker("tiny", device="cpu", policy=policy) as reranker:
        store = open_store(":memory:", layout=layout)
        ingest(Loader().load([files]), embedder, store)
        app = create_app(
            embedder=embedder,
            reranker=reranker if reranked else None,
            store=store,
            media=media if uploads else None,
            settings=settings,
        )
        with ModelServer(app, root_path) as server:
            yield LibraryServer(server, store, files, media)
        store.close()


def open_embedder(policy: MediaPolicy) -> Embedder:
    return Embedder("tiny", device="cpu", policy=policy)
