"""Ingestion writes each document once, whatever interrupts it, and searching finds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from qwen3vl import Document, Embedder, RecipeError, Report, Reranker, Retriever, Store, StoreError, ingest, open_store
from qwen3vl.cli import main
from qwen3vl.demo.scenes import Scene, random_scene
from qwen3vl.loaders import Loader


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store(":memory:")
    yield opened
    opened.close()


def draw(folder: Path, count: int, seed: int = 4) -> list[tuple[Path, Scene]]:
    random = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[object, tuple[Path, Scene]] = {}
    while len(made) < count:
        scene = random_scene(random)
        if scene.key not in made:
            path = folder / f"{len(made):04d}.png"
            scene.draw(random).save(path)
            made[scene.key] = (path, scene)
    return list(made.values())


def run(folder: Path, embedder: Embedder, store: Store) -> Report:
    return ingest(Loader().load([folder]), embedder, store, sync=lambda source: source.startswith(str(folder)))


class Counting(Embedder):
    """An embedder that counts what it is given."""

    embedded = 0

    def stream(self, inputs, **options):
        for result in super().stream(inputs, **options):
            self.embedded += 1
            yield result


def test_second_run_embeds_nothing(tmp_path: Path, store: Store) -> None:
    draw(tmp_path / "in", 70)
    embedder = Counting("tiny", device="cpu")
    first = run(tmp_path / "in", embedder, store)
    assert (first.added, first.unchanged, embedder.embedded) == (70, 0, 70)
    second = run(tmp_path / "in", embedder, store)
    assert (second.added, second.unchanged, second.deleted, embedder.embedded) == (0, 70, 0, 70)


def test_changed_deleted_and_broken(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    folder = tmp_path / "in"
    made = draw(folder, 6)
    run(folder, tiny_embedder, store)
    made[0][1].draw(Random(77)).save(made[0][0])
    made[1][0].unlink()
    made[2][0].write_bytes(b"broken now")
    report = run(folder, tiny_embedder, store)
    assert (report.added, report.unchanged, report.replaced, report.deleted) == (1, 3, 1, 1)
    ((name, reason),) = report.failed
    assert name == str(made[2][0])
    assert "not an image" in reason
    # What failed keeps its old vector until it can be read again or is gone.
    assert store.count() == 5
    made[2][1].draw(Random(78)).save(made[2][0])
    report = run(folder, tiny_embedder, store)
    assert (report.added, report.unchanged, report.replaced, report.failed) == (1, 4, 1, [])
    assert store.count() == 5


def test_recipes_are_held_apart(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    draw(tmp_path / "in", 2)
    run(tmp_path / "in", tiny_embedder, store)
    for settings, field in (
        ({"dimensions": 64}, "dimensions"),
        ({"max_pixels": 20_000}, "max_pixels"),
        ({"fps": 2.0}, "fps"),
    ):
        other = Embedder("tiny", device="cpu", **settings)
        with pytest.raises(RecipeError, match=field):
            run(tmp_path / "in", other, store)
        with pytest.raises(RecipeError, match=field):
            Retriever(other, store)


def test_a_foreign_collection_is_left_alone(tiny_embedder: Embedder) -> None:
    from qdrant_client import QdrantClient, models
    from qwen3vl_qdrant import QdrantStore

    client = QdrantClient(":memory:")
    client.create_collection("qwen3vl", models.VectorParams(size=4, distance=models.Distance.DOT))
    with pytest.raises(StoreError, match="was not made by qwen3vl"):
        QdrantStore(client).create(tiny_embedder.recipe)
    assert client.count("qwen3vl").count == 0


def test_empty_store_cannot_be_searched(store: Store, tiny_embedder: Embedder) -> None:
    with pytest.raises(RecipeError, match="nothing was indexed"):
        Retriever(tiny_embedder, store)


def test_retrieval_end_to_end(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    """Scenes drawn for this test, found by their captions and by another drawing of them."""
    made = draw(tmp_path / "in", 150, seed=12)
    run(tmp_path / "in", tiny_embedder, store)
    retriever = Retriever(tiny_embedder, store)
    random = Random(5)

    def found(queries: list[object], most: int) -> float:
        hits = [retriever.search(query, most) for query in queries]  # type: ignore[arg-type]
        right = [
            any(hit.document.source == str(path) for hit in each) for each, (path, _) in zip(hits, made, strict=False)
        ]
        return sum(right) / len(right)

    words: list[object] = [scene.caption(random.randrange(3)) for _, scene in made[:60]]
    assert found(words, 1) >= 0.85
    assert found(words, 5) >= 0.97
    again: list[object] = [{"image": Scene(scene.things, 2).draw(random)} for _, scene in made[:40]]
    assert found(again, 5) >= 0.95


def test_kinds_filter_and_reranking(
    tmp_path: Path, store: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    made = draw(tmp_path / "in", 20)
    (tmp_path / "in" / "notes.md").write_text("\n\n".join(f"## {n}\n\n{s.caption()}" for n, (_, s) in enumerate(made)))
    run(tmp_path / "in", tiny_embedder, store)
    retriever = Retriever(tiny_embedder, store, tiny_reranker, candidates=8)
    query = made[3][1].caption()
    hits = retriever.search(query, 5, where={"kind": ["picture"]})
    assert len(hits) == 5
    assert {hit.document.kind for hit in hits} == {"picture"}
    scores = [hit.rerank_score or 0 for hit in hits]
    assert scores == sorted(scores, reverse=True)
    alone = tiny_reranker.score(query, [hit.document.input for hit in hits])
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    made[3][0].unlink()
    hits = retriever.search(query, 8, where={"kind": ["picture"]})
    assert hits[-1].document.source == str(made[3][0])
    assert hits[-1].rerank_score is None


def test_documents_keep_everything(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    draw(tmp_path / "in", 3)
    (tmp_path / "in" / "a.txt").write_text("a red circle on the left")
    loaded = [each for each in Loader().load([tmp_path / "in"]) if isinstance(each, Document)]
    ingest(loaded, tiny_embedder, store)
    hits = Retriever(tiny_embedder, store).search("a red circle on the left", 10)
    assert sorted(hit.document.id for hit in hits) == sorted(document.id for document in loaded)
    assert {hit.document.name: hit.document for hit in hits} == {document.name: document for document in loaded}


def index(folder: Path, place: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "qwen3vl",
        "index",
        str(folder),
        "--store",
        str(place),
        "--model",
        "tiny",
        "--json",
    ]
    # A shell's background requests ignore Ctrl-C, and so would what they start.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_resumes_after_a_blow(tmp_path: Path, blow: signal.Signals) -> None:
    draw(tmp_path / "in", 600)
    process = index(tmp_path / "in", tmp_path / "store")
    database = tmp_path / "store" / "collection" / "qwen3vl" / "storage.sqlite"
    for _ in range(6000):
        if database.exists() and database.stat().st_size > 100_000:
            break
        time.sleep(0.01)
    os.kill(process.pid, blow)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGKILL, 130)
    again = index(tmp_path / "in", tmp_path / "store")
    told, _ = again.communicate(timeout=120)
    summary = json.loads(told)
    assert summary["added"] + summary["unchanged"] == 600
    assert summary["unchanged"] > 0
    assert summary["stored"] == 600
    assert summary["failed"] == []


def test_a_store_in_use(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    opened = open_store(place)
    with pytest.raises(StoreError, match="open in another process"):
        open_store(place)
    opened.close()


def test_picture_formats(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    (path, scene), *_ = draw(tmp_path / "in", 1)
    picture = Image.open(path)
    for suffix in ("jpg", "webp", "bmp", "gif", "tiff", "avif", "ppm"):
        picture.save(tmp_path / "in" / f"x.{suffix}")
    report = run(tmp_path / "in", tiny_embedder, store)
    assert (report.added, report.failed) == (8, [])
    hits = Retriever(tiny_embedder, store).search(scene.caption(), 8)
    assert min(hit.score for hit in hits) > 0.9 * max(hit.score for hit in hits)


def test_what_is_not_there_today_is_kept(tmp_path: Path, tiny_embedder: Embedder) -> None:
    """A folder that was renamed, or whose disk is not mounted, loses nothing."""
    draw(tmp_path / "lib", 3)
    arguments = ["index", str(tmp_path / "lib"), "--store", str(tmp_path / "store"), "--model", "tiny", "--json"]
    assert main(arguments) == 0
    (tmp_path / "lib").rename(tmp_path / "lib2")
    assert main(arguments) == 1
    (tmp_path / "lib").mkdir()
    assert main(arguments) == 0
    opened = open_store(str(tmp_path / "store"))
    assert opened.count() == 3
    opened.close()


def test_documents_of_one_source_by_hand(store: Store, tiny_embedder: Embedder) -> None:
    made = [Document("kb", "text", text=text) for text in ("a red star", "a blue ring", "a red star")]
    assert ingest(made, tiny_embedder, store).added == 2
    assert store.count() == 2


def test_a_name_that_is_not_utf8(tmp_path: Path, store: Store, tiny_embedder: Embedder) -> None:
    draw(tmp_path / "in", 2)
    (path, _), *_ = draw(tmp_path / "more", 1)
    os.rename(path, os.fsencode(tmp_path / "in") + b"/caf\xe9.png")  # noqa: PTH104 (the name is bytes)
    report = run(tmp_path / "in", tiny_embedder, store)
    assert report.added == 2
    assert "not valid UTF-8" in report.failed[0][1]
