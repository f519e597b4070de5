"""`ingest` with the tiny model and files: each document is written once, whatever interrupts it, and is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient

from qwen3vl import Document, Embedder, RecipeError, Report, Reranker, Retriever, Store, StoreError, ingest, open_store
from qwen3vl.cli import main
from qwen3vl.demo.scenes import Scene
from qwen3vl.ingestion import LoaderItem
from qwen3vl.loaders import Loader
from tests.support.drawn_scenes import draw_scenes


@pytest.fixture
def store() -> Iterator[Store]:
    store = open_store(":memory:")
    yield store
    store.close()


def ingest_folder(folder: Path, embedder: Embedder, store: Store) -> Report:
    return ingest(Loader().load([folder]), embedder, store, sync=lambda source: source.startswith(str(folder)))


class CountingEmbedder(Embedder):
    embedded = 0

    def stream(self, inputs, **options):
        for result in super().stream(inputs, **options):
            self.embedded += 1
            yield result


def test_second_run_embeds_nothing(tmp_path: Path, store: Store) -> None:
    draw_scenes(tmp_path / "in", 70)
    embedder = CountingEmbedder("tiny", device="cpu")
    first = ingest_folder(tmp_path / "in", embedder, store)
    assert (first.added, first.unchanged, embedder.embedded) == (70, 0, 70)
    second = ingest_folder(tmp_path / "in", embedder, store)
    assert (second.added, second.unchanged, second.deleted, embedder.embedded) == (0, 70, 0, 70)


def test_documents_are_written_while_the_stream_pauses(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    draw_scenes(tmp_path / "in", 3)
    written = threading.Event()

    def stream() -> Iterator[LoaderItem]:
        yield from Loader().load([tmp_path / "in"])
        yield Document("note", "text", text="a red circle")
        assert written.wait(60), "nothing is written before the next document comes"
        yield Document("later", "text", text="a blue star")

    def progress(report: Report) -> None:
        if report.added == 4:
            written.set()

    report = ingest(stream(), tiny_embedder, store, progress=progress)
    assert (report.added, report.failed) == (5, [])
    assert Retriever(tiny_embedder, store).search("a blue star", 1)[0].document.source == "later"


def test_sync_replaces_changed_deletes_missing_and_keeps_broken_files(
    tmp_path: Path, store: Store, tiny_embedder: Embedder
) -> None:
    folder = tmp_path / "in"
    scenes = draw_scenes(folder, 6)
    ingest_folder(folder, tiny_embedder, store)
    scenes[0][1].draw(Random(77)).save(scenes[0][0])
    scenes[1][0].unlink()
    scenes[2][0].write_bytes(b"broken now")
    report = ingest_folder(folder, tiny_embedder, store)
    assert (report.added, report.unchanged, report.replaced, report.deleted) == (1, 3, 1, 1)
    ((name, reason),) = report.failed
    assert name == str(scenes[2][0])
    assert "not an image" in reason
    # A file that cannot be read keeps its old vector until it can be read again or is deleted.
    assert store.count() == 5
    scenes[2][1].draw(Random(78)).save(scenes[2][0])
    report = ingest_folder(folder, tiny_embedder, store)
    assert (report.added, report.unchanged, report.replaced, report.failed) == (1, 4, 1, [])
    assert store.count() == 5


def test_other_recipe_is_an_error_that_names_the_field(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    draw_scenes(tmp_path / "in", 2)
    ingest_folder(tmp_path / "in", tiny_embedder, store)
    for settings, field in (
        ({"dimensions": 64}, "dimensions"),
        ({"max_pixels": 20_000}, "max_pixels"),
        ({"fps": 2.0}, "fps"),
    ):
        other = Embedder("tiny", device="cpu", **settings)
        with pytest.raises(RecipeError, match=field):
            ingest_folder(tmp_path / "in", other, store)
        with pytest.raises(RecipeError, match=field):
            Retriever(other, store)


def test_foreign_collection_is_not_changed(tiny_embedder: Embedder) -> None:
    from qdrant_client import QdrantClient, models
    from qwen3vl_qdrant import QdrantStore

    client = QdrantClient(":memory:")
    client.create_collection("qwen3vl", models.VectorParams(size=4, distance=models.Distance.DOT))
    with pytest.raises(StoreError, match="was not made by qwen3vl"):
        QdrantStore(client).create(tiny_embedder.recipe)
    assert client.count("qwen3vl").count == 0


def test_retriever_of_an_empty_store_is_an_error(store: Store, tiny_embedder: Embedder) -> None:
    with pytest.raises(RecipeError, match="nothing was indexed"):
        Retriever(tiny_embedder, store)


def test_scenes_are_found_by_caption_and_by_another_drawing(
    tmp_path: Path, store: Store, tiny_embedder: Embedder
) -> None:
    scenes = draw_scenes(tmp_path / "in", 150, seed=12)
    ingest_folder(tmp_path / "in", tiny_embedder, store)
    retriever = Retriever(tiny_embedder, store)
    random = Random(5)

    def recall(queries: list[object], limit: int) -> float:
        results = [retriever.search(query, limit) for query in queries]  # type: ignore[arg-type]
        is_found = [
            any(hit.document.source == str(path) for hit in hits)
            for hits, (path, _) in zip(results, scenes, strict=False)
        ]
        return sum(is_found) / len(is_found)

    captions: list[object] = [scene.caption(random.randrange(3)) for _, scene in scenes[:60]]
    assert recall(captions, 1) >= 0.85
    assert recall(captions, 5) >= 0.97
    drawings: list[object] = [{"image": Scene(scene.things, 2).draw(random)} for _, scene in scenes[:40]]
    assert recall(drawings, 5) >= 0.95


def test_filtered_hits_are_reranked_and_unreadable_ones_come_last(
    tmp_path: Path, store: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    scenes = draw_scenes(tmp_path / "in", 20)
    (tmp_path / "in" / "notes.md").write_text(
        "\n\n".join(f"## {number}\n\n{scene.caption()}" for number, (_, scene) in enumerate(scenes))
    )
    ingest_folder(tmp_path / "in", tiny_embedder, store)
    retriever = Retriever(tiny_embedder, store, tiny_reranker, candidates=8)
    query = scenes[3][1].caption()
    hits = retriever.search(query, 5, where={"kind": ["picture"]})
    assert len(hits) == 5
    assert {hit.document.kind for hit in hits} == {"picture"}
    scores = [hit.rerank_score or 0 for hit in hits]
    assert scores == sorted(scores, reverse=True)
    expected = tiny_reranker.score(query, [hit.document.input for hit in hits])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    scenes[3][0].unlink()
    hits = retriever.search(query, 8, where={"kind": ["picture"]})
    assert hits[-1].document.source == str(scenes[3][0])
    assert hits[-1].rerank_score is None


def test_hits_have_the_documents_as_they_were_loaded(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    draw_scenes(tmp_path / "in", 3)
    (tmp_path / "in" / "a.txt").write_text("a red circle on the left")
    loaded = [document for document in Loader().load([tmp_path / "in"]) if isinstance(document, Document)]
    ingest(loaded, tiny_embedder, store)
    hits = Retriever(tiny_embedder, store).search("a red circle on the left", 10)
    assert sorted(hit.document.id for hit in hits) == sorted(document.id for document in loaded)
    assert {hit.document.name: hit.document for hit in hits} == {document.name: document for document in loaded}


def start_index(folder: Path, store: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "qwen3vl",
        "index",
        str(folder),
        "--store",
        str(store),
        "--model",
        "tiny",
        "--json",
    ]
    # Background jobs of a shell ignore SIGINT, and so would their children.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def bytes_on_disk(folder: Path) -> int:
    """What the files of a folder occupy; Qdrant's are mostly holes."""
    blocks = 0
    for parent, _, names in os.walk(folder):  # `rglob` fails where a temporary folder is deleted meanwhile
        for name in names:
            with suppress(FileNotFoundError):
                blocks += (Path(parent) / name).stat().st_blocks
    return blocks * 512


@pytest.fixture(scope="module")
def many_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 600 images."""
    folder = tmp_path_factory.mktemp("scenes")
    draw_scenes(folder, 600)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("database", "sent_signal"), list(product(("edge", "local"), (signal.SIGKILL, signal.SIGINT))))
def test_index_resumes_after_a_signal(
    many_scenes: Path, tmp_path: Path, database: str, sent_signal: signal.Signals, tiny_embedder: Embedder
) -> None:
    store, empty = tmp_path / "store", tmp_path / "empty"
    if database == "local":
        for folder in (store, empty):
            QdrantClient(path=str(folder)).close()
    opened = open_store(str(empty))
    opened.create(tiny_embedder.recipe)
    min_bytes = bytes_on_disk(empty) + 200_000  # some of the images are stored
    opened.close()
    process = start_index(many_scenes, store)
    deadline = time.monotonic() + 60
    while bytes_on_disk(store) < min_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, sent_signal)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGKILL, 130)
    second = start_index(many_scenes, store)
    output, _ = second.communicate(timeout=120)
    summary = json.loads(output)
    assert summary["added"] + summary["unchanged"] == 600
    assert summary["unchanged"] > 0
    assert summary["stored"] == 600
    assert summary["failed"] == []


def test_folder_open_in_another_client_is_an_error(tmp_path: Path) -> None:
    """In local mode, whose clients do not share a folder, not even in one process."""
    folder = str(tmp_path / "store")
    QdrantClient(path=folder).close()
    store = open_store(folder)
    with pytest.raises(StoreError, match="open in another process"):
        open_store(folder)
    store.close()


def test_image_formats_are_found_alike(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    (path, scene), *_ = draw_scenes(tmp_path / "in", 1)
    image = Image.open(path)
    for suffix in ("jpg", "webp", "bmp", "gif", "tiff", "avif", "ppm"):
        image.save(tmp_path / "in" / f"x.{suffix}")
    report = ingest_folder(tmp_path / "in", tiny_embedder, store)
    assert (report.added, report.failed) == (8, [])
    hits = Retriever(tiny_embedder, store).search(scene.caption(), 8)
    assert min(hit.score for hit in hits) > 0.9 * max(hit.score for hit in hits)


def test_missing_or_empty_folder_deletes_nothing(tmp_path: Path, tiny_embedder: Embedder) -> None:
    """A folder may be missing because it was renamed, or empty because its disk is not mounted."""
    draw_scenes(tmp_path / "lib", 3)
    arguments = ["index", str(tmp_path / "lib"), "--store", str(tmp_path / "store"), "--model", "tiny", "--json"]
    assert main(arguments) == 0
    (tmp_path / "lib").rename(tmp_path / "lib2")
    assert main(arguments) == 1
    (tmp_path / "lib").mkdir()
    assert main(arguments) == 0
    store = open_store(str(tmp_path / "store"))
    assert store.count() == 3
    store.close()


def test_equal_documents_of_one_source_are_stored_once(store: Store, tiny_embedder: Embedder) -> None:
    documents = [Document("kb", "text", text=text) for text in ("a red star", "a blue ring", "a red star")]
    assert ingest(documents, tiny_embedder, store).added == 2
    assert store.count() == 2


def test_file_name_that_is_not_utf8_is_reported(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    draw_scenes(tmp_path / "in", 2)
    (path, _), *_ = draw_scenes(tmp_path / "more", 1)
    os.rename(path, os.fsencode(tmp_path / "in") + b"/caf\xe9.png")  # noqa: PTH104 (the name is bytes)
    report = ingest_folder(tmp_path / "in", tiny_embedder, store)
    assert report.added == 2
    assert "not valid UTF-8" in report.failed[0][1]
