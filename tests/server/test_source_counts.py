"""Numbers of points by source, while the store is changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from qwen3vl_server.library.ingestion import Ingestion
from qwen3vl_server.library.jobs import NewFile
from qwen3vl_server.library.points import SourceCounts

from qwen3vl import Document, Embedder, open_store
from qwen3vl.stores import Point, PointRef
from tests.support.fake_embedder import fake_recipe, fake_vector
from tests.support.media_folders import open_media_folder


async def test_change_while_points_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    store, recipe = open_store(":memory:"), fake_recipe()
    documents = [Document("a", "text", text=f"text {number}") for number in range(3)]
    ids = [store.point_id(document, recipe) for document in documents]
    store.create(recipe)
    points = zip(ids, documents, strict=True)
    store.upsert([Point(point_id, fake_vector(document.text), document) for point_id, document in points])
    scanned, resume, scan = asyncio.Event(), asyncio.Event(), store.ascan

    async def scan_slowly() -> AsyncIterator[PointRef]:
        async for point in scan():
            yield point
        scanned.set()
        await resume.wait()

    monkeypatch.setattr(store, "ascan", scan_slowly)
    counts = SourceCounts(store)
    counting = asyncio.create_task(counts.get())
    await scanned.wait()
    await store.adelete(ids[:1])
    counts.forget()
    resume.set()
    await counting
    assert await counts.get() == {"a": 2}
    await store.adelete(ids)
    assert await counts.get() == {"a": 2}  # nobody has said that the store was changed
    store.close()


async def test_count_before_former_documents_are_deleted(
    tiny_embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(":memory:")
    store.create(tiny_embedder.recipe)
    counts, folder, delete = SourceCounts(store), open_media_folder(tmp_path), store.adelete
    ingestion = Ingestion(tiny_embedder, store, folder, counts)

    async def count_and_delete(ids: Sequence[str]) -> None:
        assert await counts.get() == {"notes": 2}
        await delete(ids)

    monkeypatch.setattr(store, "adelete", count_and_delete)

    def write_file(text: bytes) -> list[NewFile]:
        with folder.receive() as incoming:
            incoming.write(text)
            path = folder.keep(incoming, "notes", ".txt")
        return [NewFile("notes", path.relative_to(folder.path).as_posix())]

    ingestion.start()
    for text in (b"a red circle", b"a blue square"):
        job = await ingestion.submit(partial(write_file, text))
        while job.status in ("waiting", "running"):
            await asyncio.sleep(0.01)
        assert (job.status, job.error) == ("done", None)
    assert job.replaced == 1
    assert await counts.get() == {"notes": 1}
    await ingestion.close()
    store.close()
