"""`ingest` on a cluster leaves in a store what `ingest` of one process leaves there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qwen3vl_ray import embed, ingest, read, write

import qwen3vl
from qwen3vl import Document, Embedder, Loader, RecipeError, Report, Store, StoreError, open_store
from tests.ray.conftest import NODE_KEY
from tests.support import qdrant_rest
from tests.test_docs import blocks

pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]
CPU: dict[str, Any] = {"model": "tiny", "num_gpus": 0, "max_workers": 1, "device": "cpu"}


@pytest.fixture(scope="session")
def qdrant_port() -> Iterator[int]:
    """A server that asks for the key which driver and workers have in their environment."""
    with qdrant_rest.serve(NODE_KEY) as port:
        yield port


@pytest.fixture(autouse=True)
def _key_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", NODE_KEY)


@pytest.fixture(params=["qdrant", "chroma"])
def location(request: pytest.FixtureRequest, qdrant_port: int, chroma_port: int) -> str:
    port = qdrant_port if request.param == "qdrant" else chroma_port
    return f"{request.param}:http://127.0.0.1:{port}"


@pytest.fixture
def collection() -> str:
    return f"test-{uuid4().hex}"


@pytest.fixture
def library(library_folder: Path, tmp_path: Path) -> Path:
    """A copy of the library, with a copy of a picture in it: equal content under two names."""
    folder = tmp_path / "library"
    shutil.copytree(library_folder, folder)
    shutil.copy(folder / "star.png", folder / "star again.png")
    return folder


def contents(store: Store) -> dict[str, tuple[dict[str, Any], Any]]:
    """Payload and vector of all points, by id."""
    ids = [point.id for point in store.scan()]
    documents, vectors = store.documents(ids), store.vectors(ids)
    return {point_id: (documents[point_id].to_payload(), vectors[point_id]) for point_id in ids}


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert [found[key][0] for key in expected] == [expected[key][0] for key in expected]
    cosines = [float(found[key][1] @ expected[key][1]) for key in expected]
    assert min(cosines) > 0.99999


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.added, report.unchanged, report.replaced, report.deleted


def test_a_cluster_leaves_what_one_process_leaves(
    location: str, collection: str, library: Path, tiny_embedder: Embedder
) -> None:
    loader = Loader(segment_seconds=1)
    alone = open_store(location, f"{collection}-alone")
    expected = qwen3vl.ingest(loader.load(library), tiny_embedder, alone)
    report = ingest(library, location, collection=collection, loader=loader, batch_size=16, **CPU)
    store = open_store(location, collection)
    assert_equal(contents(store), contents(alone))
    assert counts(report) == counts(expected)
    assert (report.failed, report.skipped) == (expected.failed, expected.skipped)
    assert len(report.failed) == 1
    if location.startswith("qdrant:"):  # the graph, which was put off, is built
        assert graph_links(store) == 16

    # What the store has is not embedded again; what failed is tried again; what is gone is deleted.
    shutil.copy(library / "star.png", library / "corrupt [x].png")
    (library / "notes.md").write_text("# Notes\n\na purple triangle on the right\n\n## More\n\nanother text\n")
    (library / "0.png").unlink()
    expected = qwen3vl.ingest(loader.load(library), tiny_embedder, alone, sync="sources")
    again = ingest(library, location, collection=collection, loader=loader, sync=True, **CPU)
    assert counts(expected) == (2, report.added - 2, 1, 0)
    assert counts(again) == (2, report.added - 2, 1, 1)
    assert not again.failed
    alone.delete_where({"source": str(library / "0.png")})
    assert_equal(contents(store), contents(alone))


def test_another_recipe_is_refused_before_any_work(location: str, collection: str, library: Path) -> None:
    store = open_store(location, collection)
    with Embedder("tiny", device="cpu", max_frames=8) as embedder:
        qwen3vl.ingest([Document("notes", "text", text="a text")], embedder, store)
    with pytest.raises(RecipeError, match="max_frames is 8 there and 64 here"):
        ingest(library, location, collection=collection, **CPU)
    assert store.count() == 1


def test_a_worker_with_another_recipe_ends_the_run(
    qdrant_port: int, collection: str, library: Path, tiny_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the files of the model were changed after the run had begun."""
    recipe = replace(tiny_embedder.recipe, max_frames=8)
    monkeypatch.setattr("qwen3vl_ray.ingestion.model_recipe", lambda *_: recipe)
    location = f"http://127.0.0.1:{qdrant_port}"
    with pytest.raises(RecipeError, match="max_frames is 8 there and 64 here"):
        ingest(library / "notes.md", location, collection=collection, **CPU)
    assert open_store(location, collection).count() == 0


def test_a_dataset_of_others_is_ingested_and_its_broken_rows_are_named(
    location: str, collection: str, library: Path, local_ray: Any
) -> None:
    rows = [
        {"source": "a", "text": "a red star", "page": 3},
        {"source": "b", "text": "a blue ring", "page": 4},
        {"source": "b", "text": "a blue ring", "page": 5},
        {"source": "c", "image": str(library / "corrupt [x].png"), "page": 6},
        {"source": "", "text": None, "page": 7},
        {"path": str(library / "slides.pdf"), "page": None},
    ]
    dataset = local_ray.data.from_arrow(
        pa.Table.from_pylist(
            rows,
            pa.schema([*((name, pa.string()) for name in ("source", "text", "image", "path")), ("page", pa.int64())]),
        )
    )
    report = ingest(dataset, location, collection=collection, **CPU)
    # Metadata are not part of an id: the second row of b is the same document.
    assert (report.added, report.unchanged) == (4, 1)
    assert sorted(name for name, _ in report.failed) == ["", "c"]
    documents = open_store(location, collection).documents(
        [point.id for point in open_store(location, collection).scan()]
    )
    assert sorted(document.metadata["page"] for document in documents.values() if document.kind == "text") == [3, 5]


def test_embedded_rows_are_written_with_the_ids_of_ingest(
    location: str, collection: str, library: Path, tiny_embedder: Embedder, tmp_path: Path, local_ray: Any
) -> None:
    embed(read(library), **CPU).write_parquet(str(tmp_path / "vectors"))
    dataset = local_ray.data.read_parquet(str(tmp_path / "vectors"))
    report = write(dataset, location, collection=collection)
    store = open_store(location, collection)
    alone = open_store(location, f"{collection}-alone")
    qwen3vl.ingest(Loader().load(library), tiny_embedder, alone)
    assert_equal(contents(store), contents(alone))
    assert report.added == store.count()
    assert [name for name, _ in report.failed] == [str(library / "corrupt [x].png")]
    assert write(dataset, location, collection=collection, recipe=tiny_embedder.recipe).added == report.added
    assert store.count() == report.added
    # The rows are of another recipe than this collection.
    other = open_store(location, f"{collection}-other")
    with Embedder("tiny", device="cpu", fps=2.0) as embedder:
        other.create(embedder.recipe)
        with pytest.raises(RecipeError, match=r"fps is 2\.0 there and 1\.0 here"):
            write(dataset, location, collection=f"{collection}-other")
        with pytest.raises(RecipeError, match=r"fps is 1\.0 there and 2\.0 here"):
            write(dataset, location, collection=collection, recipe=embedder.recipe)
    assert other.count() == 0


def test_a_manifest_that_cannot_be_read_deletes_nothing(
    qdrant_port: int, collection: str, tiny_embedder: Embedder, tmp_path: Path
) -> None:
    location = f"http://127.0.0.1:{qdrant_port}"
    names = [tmp_path / name for name in ("one.jsonl", "two.jsonl")]
    store = open_store(location, collection)
    documents = [Document(name.stem, "text", text="a text") for name in names]
    assert qwen3vl.ingest(documents, tiny_embedder, store).added == 2
    names[0].write_text('{"source": "one", "text": "a text"}\n')
    report = ingest(names, location, collection=collection, sync=True, **CPU)
    assert [name for name, _ in report.failed] == [str(names[1])]
    assert (counts(report), store.count()) == ((0, 1, 0, 0), 2)


def test_the_documented_loop_marks_no_manifest_that_cannot_be_read(
    qdrant_port: int, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of docs/scale.md, whose paths are relative, while the failures have absolute ones."""
    monkeypatch.chdir(tmp_path)
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    pq.write_table(pa.table({"text": ["a text", "another"]}), manifests / "fine.parquet")
    pq.write_table(pa.table({"text": ["a text", None]}), manifests / "row.parquet")
    whole = (manifests / "fine.parquet").read_bytes()
    (manifests / "short.parquet").write_bytes(whole[: len(whole) // 2])
    (block,) = blocks("docs/scale.md", "python")
    code = block.replace('"http://qdrant:6333"', f'"http://127.0.0.1:{qdrant_port}", collection={collection!r}')
    code = code.replace('model="Qwen/Qwen3-VL-Embedding-2B"', "**CPU")
    assert code.count(collection) == code.count("**CPU") == 1
    exec(compile(code, "docs/scale.md", "exec"), {"CPU": CPU})
    assert sorted(path.name for path in manifests.glob("*.done")) == ["fine.done", "row.done"]
    assert "cannot be read" in (manifests / "short.failed").read_text()
    assert "row=2" in (manifests / "row.failed").read_text()


def test_an_empty_folder_deletes_nothing(qdrant_port: int, collection: str, tmp_path: Path) -> None:
    location = f"http://127.0.0.1:{qdrant_port}"
    store = open_store(location, collection)
    with Embedder("tiny", device="cpu") as embedder:
        qwen3vl.ingest([Document("notes", "text", text="a text")], embedder, store)
    assert counts(ingest(tmp_path, location, collection=collection, sync=True, **CPU)) == (0, 0, 0, 0)
    assert store.count() == 1


def test_a_cluster_does_not_write_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="write to a server"):
        ingest(tmp_path, str(tmp_path / "store"), **CPU)


def test_the_graph_of_a_new_collection_is_put_off(qdrant_port: int, collection: str, tiny_embedder: Embedder) -> None:
    store = open_store(f"http://127.0.0.1:{qdrant_port}", collection)
    store.create(tiny_embedder.recipe)
    store.defer_index()
    assert graph_links(store) == 0
    store.build_index()
    assert graph_links(store) == 16
    qwen3vl.ingest([Document("notes", "text", text="a text")], tiny_embedder, store)
    store.defer_index()  # it has points: nothing is put off
    assert graph_links(store) == 16


def graph_links(store: Any) -> int:
    """Return the links of a point in the HNSW graph of a Qdrant collection; 0 if none is built."""
    return int(store.client.get_collection(store.collection).config.hnsw_config.m)
