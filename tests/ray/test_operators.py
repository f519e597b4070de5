"""What the operators do with the rows of a batch, called in this process."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from qwen3vl_qdrant import Layout, QdrantStore
from qwen3vl_ray import Embed, Rerank, StoreDatasink, Target, embed
from qwen3vl_ray.contents import EmbedNew
from qwen3vl_ray.documents import documents_table
from qwen3vl_ray.downloads import Downloads
from qwen3vl_ray.ingestion import model_recipe, to_entries
from qwen3vl_ray.manifests import ENTRY_SCHEMA, read_manifest, to_entry
from qwen3vl_ray.objects import is_plain
from qwen3vl_ray.reading import load_entries
from qwen3vl_ray.rows import MANIFEST
from qwen3vl_ray.tally import read_tallies, take_failures
from ray.data.extensions import ArrowTensorArray

from qwen3vl import Document, Embedder, Loader, MediaError, MediaPolicy, PolicyError, RecipeError, StoreError
from qwen3vl.documents import LoadFailure
from tests.support import qdrant_rest
from tests.support.http_thread import serve_folder


@pytest.fixture(scope="module")
def port() -> Any:
    with qdrant_rest.serve() as port:
        yield port


@pytest.fixture
def target(port: int, request: pytest.FixtureRequest) -> Target:
    return Target(f"http://127.0.0.1:{port}", request.node.name)


def texts(*numbers: int) -> list[Document]:
    return [Document(str(number), "text", text=f"a text of {number % 10}") for number in numbers]


def written(table: pa.Table, sink: StoreDatasink) -> Any:
    return sink.write([table], None).to_report()


def test_what_the_store_has_is_not_embedded_again(target: Target, tiny_embedder: Embedder) -> None:
    recipe = tiny_embedder.recipe
    operator = EmbedNew(target, recipe, for_sync=True, model="tiny", device="cpu")
    store = target.prepare(recipe)
    assert read_tallies(operator(documents_table(texts(1, 2))))[1].added == 2
    rows, tally = read_tallies(operator(documents_table([*texts(1, 2, 3, 13), LoadFailure("gone", "it is gone")])))
    assert rows["id"].to_pylist() == [document.id for document in texts(3, 13)]
    first, second = (store.vectors([store.point_id(each, recipe)]).popitem()[1] for each in texts(3, 13))
    assert np.array_equal(first, second)
    assert (tally.added, tally.unchanged, len(tally.seen)) == (2, 2, 4)
    assert list(map(tuple, tally.failed)) == [("gone", "", "it is gone")]
    rows, tally = read_tallies(operator(documents_table(texts(1, 2))))
    assert (rows.num_rows, tally.added, tally.unchanged) == (0, 0, 2)


def test_rows_that_are_no_points_are_named_and_the_others_written(target: Target, tiny_embedder: Embedder) -> None:
    recipe = json.dumps(tiny_embedder.recipe.to_dict())
    vector = np.eye(1, tiny_embedder.dimension, dtype=np.float32)[0].tolist()
    rows = [
        {"source": "fine", "text": "a", "vector": vector, "recipe": recipe},
        {"source": "no recipe", "text": "b", "vector": vector, "recipe": None},
        {"source": "no vector", "text": "c", "vector": None, "recipe": recipe},
        # Together they have as many values as two vectors.
        {"source": "short", "text": "d", "vector": vector[:-1], "recipe": recipe},
        {"source": "long", "text": "e", "vector": [*vector, 0.0], "recipe": recipe},
    ]
    report = written(pa.Table.from_pylist(rows), StoreDatasink(target))
    assert report.added == 1
    assert [name for name, _ in report.failed] == ["no recipe", "no vector", "short", "long"]
    assert "its recipe says" in report.failed[2][1]


def test_each_write_creates_and_checks_the_collection(target: Target, tiny_embedder: Embedder) -> None:
    """Ray uses the process of a worker again for further writes."""
    vector = np.eye(1, tiny_embedder.dimension, dtype=np.float32)[0].tolist()
    recipe = tiny_embedder.recipe
    row = {"source": "a", "text": "a", "vector": vector, "recipe": json.dumps(recipe.to_dict())}
    table = pa.Table.from_pylist([row])
    for layout in (Layout(), Layout(short=16)):
        store = QdrantStore(target.connect().client, target.collection, layout=layout)
        store.create(recipe)
        assert written(table, StoreDatasink(target)).added == 1
        store.client.delete_collection(target.collection)
    assert written(table, StoreDatasink(target)).added == 1  # into a new collection
    assert target.connect().count() == 1
    target.connect().client.delete_collection(target.collection)
    target.connect().create(replace(recipe, weights="another"))
    with pytest.raises(RecipeError, match=r"weights is .another. there"):
        written(table, StoreDatasink(target))


def test_an_index_that_cannot_be_built_is_no_failure_of_the_run(
    target: Target, tiny_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = StoreDatasink(target, tiny_embedder.recipe)
    sink.on_write_start()

    def fail(*_: Any) -> None:
        raise StoreError("the server is gone")

    monkeypatch.setattr(type(target.open()), "build_index", fail)
    sink.on_write_complete(type("Result", (), {"write_returns": []}))
    assert sink.report.added == 0


def test_a_manifest_that_cannot_be_read_is_a_failure_of_unknown_documents(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "fine"}\n{broken\n')
    names = [str(tmp_path / name) for name in ("rows.jsonl", "gone.jsonl")]
    table = pa.concat_tables(read_manifest(pa.table({"manifest": names})))
    rows, tally = take_failures(table)
    assert rows["text"].to_pylist() == ["fine"]
    assert [(source, locator) for source, locator, _ in tally.failed] == [(names[0], "row=2"), (names[1], "")]
    assert tally.has_unknown_failure
    # `ingest` gets the rows of `read` as a dataset of others.
    again = take_failures(to_entries(table.drop_columns(["path"])))[1]
    assert (again.failed, again.has_unknown_failure) == (tally.failed, True)
    known = take_failures(to_entries(documents_table([LoadFailure("a.pdf", "it is broken")])))[1]
    assert not known.has_unknown_failure


def test_a_broken_row_that_names_its_source_concerns_that_source_only(tmp_path: Path) -> None:
    rows = [
        {"source": "b", "text": "a text", "kind": "x"},
        {"image": "c.png", "kind": "x"},
        {"path": "d.pdf", "metadata": "{"},
    ]
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    failures = take_failures(pa.concat_tables(read_manifest(pa.table({"manifest": [str(manifest)]}))))[1]
    assert [source for source, _, _ in failures.failed] == ["b", str(tmp_path / "c.png"), str(tmp_path / "d.pdf")]
    assert [reason.partition(": ")[0] for _, _, reason in failures.failed] == [f"{manifest}#row={n}" for n in (1, 2, 3)]
    assert not failures.has_unknown_failure


def entries_of(rows: list[Any], folder: Path) -> list[dict[str, Any]]:
    """What a manifest of some rows, or lines, has."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    entries: list[dict[str, Any]] = pa.concat_tables(
        read_manifest(pa.table({"manifest": [str(folder / "rows.jsonl")]}))
    ).to_pylist()
    return entries


def test_a_line_that_is_nested_too_deep_ends_no_manifest(tmp_path: Path) -> None:
    deep = "[" * 100_000
    rows = entries_of([deep, {"text": "b", "metadata": deep}, {"text": "c"}], tmp_path)
    assert [row["text"] for row in rows] == [None, None, "c"]
    assert "no JSON" in rows[0]["error"]
    assert "metadata are no JSON" in rows[1]["error"]


def test_a_row_with_an_empty_text_does_not_load_its_source(tmp_path: Path) -> None:
    rows = entries_of([{"source": "report.pdf", "text": "", "locator": "page=3"}, {"source": "report.pdf"}], tmp_path)
    assert [(row["source"], row["path"]) for row in rows] == [
        ("report.pdf", None),
        (None, str(tmp_path / "report.pdf")),
    ]
    assert "fill one of these columns" in rows[0]["error"]


def test_the_id_of_a_row_of_others_is_kept(tmp_path: Path) -> None:
    document = texts(1)[0]
    own = documents_table([document]).to_pylist()[0]
    rows = entries_of([{"text": "a", "id": 7}, {"path": "b.pdf", "id": "seven"}, own], tmp_path)
    assert [json.loads(row["metadata"]) for row in rows] == [{"id": 7}, {"id": "seven"}, {}]
    assert rows[2]["id"] == document.id


def test_a_broken_row_with_a_path_concerns_the_file(tmp_path: Path) -> None:
    rows = entries_of([{"path": "a.pdf", "source": "https://example.org/a.pdf", "locator": "page=3"}], tmp_path)
    day = {"path": "a.pdf", "source": "b", "day": date(2020, 1, 1)}
    rows.append(to_entry(day, str(tmp_path), LoadFailure("list", "", locator="row=1")))
    assert [row["source"] for row in rows] == [str(tmp_path / "a.pdf")] * 2
    assert "leave the locator out" in rows[0]["error"]
    assert (
        rows[1]["error"]
        == "list#row=1: its metadata 'day' is of type datetime.date, which JSON cannot hold; convert it"
    )


def test_a_broken_row_that_names_nothing_concerns_unknown_documents(tmp_path: Path) -> None:
    (row,) = entries_of([{"kind": "picture"}], tmp_path)
    assert (row["source"], row["locator"], row["kind"]) == (str(tmp_path / "rows.jsonl"), "row=1", MANIFEST)


def test_images_as_tensors_are_embedded(tiny_embedder: Embedder) -> None:
    """As `ray.data.read_images` gives them."""
    images = np.random.default_rng(5).integers(0, 255, (2, 32, 48, 3), dtype=np.uint8)
    result = Embed("tiny", device="cpu")(pa.table({"image": ArrowTensorArray.from_numpy(images)})).to_pylist()
    assert [row["error"] for row in result] == [None, None]
    expected = tiny_embedder.embed([{"image": image} for image in images])
    assert np.allclose([row["vector"] for row in result], expected, atol=1e-6)


@pytest.mark.parametrize("contents", [{"text": "a text"}, {"image": "a.png", "text": "a text"}, {"video": "a.mp4"}])
def test_a_row_with_a_path_and_content_of_its_own_is_an_error(contents: dict[str, str], tmp_path: Path) -> None:
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text(json.dumps({"path": "b.pdf", **contents}))
    rows, failures = take_failures(pa.concat_tables(read_manifest(pa.table({"manifest": [str(manifest)]}))))
    assert rows.num_rows == 0
    ((source, _, reason),) = failures.failed
    assert source == str(tmp_path / "b.pdf")
    assert f"a path and {' and '.join(sorted(contents, reverse=True))}" in reason
    assert to_entry({"path": "b.pdf", "text": "", "image": None}, "", LoadFailure("row", ""))["path"] == "b.pdf"


@pytest.mark.parametrize("scheme", ["local://", "zip://star.png::file://", "dir://::file://"])
def test_folders_of_the_policy_hold_for_urls_of_any_file_system(
    library_folder: Path, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of temporary files is allowed, the library is not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    policy = MediaPolicy(folders=(tmp_path,))
    url = f"{scheme}{library_folder}/star.png"
    (row,) = Embed("tiny", device="cpu", policy=policy)(pa.table({"image": [url]})).to_pylist()
    assert row["vector"] is None
    assert "allows" in row["error"] or "plain URLs" in row["error"]
    entries = pa.Table.from_pylist([{"path": url}], ENTRY_SCHEMA)
    loaded = pa.concat_tables(load_entries(entries, Loader(policy=policy), keep_skipped=False))
    assert [(row["kind"], row["error"] is None) for row in loaded.to_pylist()] == [(None, False)]


@pytest.mark.parametrize(
    "form",
    ["simplecache://::{}/meta.txt", "filecache://::{}/meta.txt", "dir://meta.txt::{}", "zip://meta.txt::{}/a.zip"],
)
def test_manifests_do_not_make_workers_read_private_addresses(form: str, tmp_path: Path) -> None:
    with serve_folder(tmp_path) as (address, requests):
        (tmp_path / "meta.txt").write_text("an address of this network")
        entries = pa.Table.from_pylist([{"path": form.format(address)}], ENTRY_SCHEMA)
        (row,) = pa.concat_tables(load_entries(entries, Loader(), keep_skipped=False)).to_pylist()
        assert "MediaPolicy(private_hosts=True)" in row["error"]
        assert not requests
        if "txt::" not in form:
            policy = MediaPolicy(private_hosts=True)
            (row,) = pa.concat_tables(load_entries(entries, Loader(policy=policy), keep_skipped=False)).to_pylist()
            assert row["text"] == "an address of this network"


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("s3://bucket/a b#1?.pdf", True),
        ("S3://bucket/a.pdf", True),
        ("gs://anonymous@bucket/a.pdf", True),
        ("abfs://container/a.pdf", True),
        ("abfss://container@account.dfs.core.windows.net/a.pdf", True),
        ("abfs://account@127.0.0.1:10000/container/a.pdf", False),
        ("abfs://account@127.0.0.1#.core.windows.net/a.pdf", False),
        ("az://container@127.0.0.1/.core.windows.net", False),
        ("s3://bucket/a.pdf?endpoint_override=127.0.0.1:9000", False),
        ("s3://bucket?%65ndpoint_override=127.0.0.1:9000/a.pdf", False),
        ("oss://http://127.0.0.1/a.pdf", False),
        ("webhdfs://127.0.0.1/a.pdf", False),
        ("zip://a.pdf::s3://bucket/a.zip", False),
    ],
)
def test_plain_urls_name_no_server(url: str, plain: bool) -> None:
    assert is_plain(url) == plain


def test_files_in_a_folder_of_the_policy_are_opened(
    library_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    policy = MediaPolicy(folders=(tmp_path, library_folder))
    table = pa.table({"image": [f"local://{library_folder}/star.png"] * 2})
    operator = Embed("tiny", device="cpu", policy=policy)
    assert operator(table)["error"].to_pylist() == [None, None]
    del operator  # as Ray does when a worker ends
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_policies_that_allow_no_object_store(library_folder: Path) -> None:
    url = f"local://{library_folder}/star.png"
    for policy in (MediaPolicy(hosts="example.org"), MediaPolicy(folders=()), MediaPolicy(urls=False)):
        with Downloads(policy) as downloads, pytest.raises(PolicyError, match="is not downloaded"):
            downloads.acquire(url)
    with Downloads(MediaPolicy(max_bytes=10)) as downloads, pytest.raises(PolicyError, match="allows 10"):
        downloads.acquire(url)


def test_a_file_is_downloaded_once_for_all_batches_and_copies_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = [tmp_path / f"{number}.bin" for number in range(3)]
    for file in files:
        file.write_bytes(file.name[:1].encode() * 100)
    urls = [f"local://{file}" for file in files]
    with Downloads(MediaPolicy(), max_kept_bytes=200) as downloads:
        with downloads.batch() as first, downloads.batch() as second:
            copies = [first.fetch(url) for url in urls]
            assert [second.fetch(url) for url in urls] == copies
            assert [copy.read_bytes() for copy in copies] == [file.read_bytes() for file in files]
        assert [copy.exists() for copy in copies] == [False, True, True]
        files[1].unlink()
        with downloads.batch() as third:
            assert third.fetch(urls[1]) == copies[1]
            assert third.fetch(urls[0]).read_bytes() == files[0].read_bytes()
        assert [copy.exists() for copy in copies[1:]] == [True, False]
        with downloads.batch() as fourth, pytest.raises(MediaError, match=r"cannot be downloaded: FileNotFoundError"):
            fourth.fetch(f"{urls[1]}.gone")
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []


def test_documents_that_are_no_list_are_refused() -> None:
    with pytest.raises(TypeError, match="list of documents"):
        Rerank("tiny", device="cpu")(pa.table({"query": ["a"], "documents": ["a text"]}))


def test_keys_are_not_passed_through_ray(local_ray: Any) -> None:
    arguments: dict[str, Any] = {"model": "http://127.0.0.1:1", "api_key": "secret"}
    with pytest.raises(ValueError, match="QWEN3VL_API_KEY"):
        embed(local_ray.data.range(1), num_gpus=0, **arguments)
    with pytest.raises(ValueError, match="QWEN3VL_API_KEY"):
        model_recipe(arguments, 0)


def test_a_run_that_waits_for_gpus_says_so(local_ray: Any, caplog: pytest.LogCaptureFixture) -> None:
    embed(local_ray.data.range(1), model="tiny", num_gpus=64)
    assert "the run waits until a node with GPUs joins" in caplog.text
