"""Embedded stores in folders that are new, shared, read-only or damaged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from qdrant_client import QdrantClient
from qwen3vl_qdrant import Layout, QdrantEdgeStore, QdrantStore

from qwen3vl import Store, StoreError, ingest, open_store
from tests.support.fake_embedder import FakeEmbedder, passages, query_vector
from tests.support.read_only import run_with_read_only_folder

DOCUMENTS = passages(30)
DATABASES = ("qdrant", "local", "chroma")
"""`local` is a folder of qdrant-client's local mode, as earlier versions made it."""


def location(database: str, folder: Path | str) -> str:
    return f"{database.replace('local', 'qdrant')}:{folder}"


def make_store(database: str, folder: Path) -> Path:
    """An embedded store of 30 documents, closed."""
    if database == "local" and not (folder / "meta.json").exists():
        QdrantStore(QdrantClient(path=str(folder))).close()  # later calls of `open_store` leave its kind as it is
    store = open_store(location(database, folder))
    assert isinstance(store, QdrantEdgeStore) == (database == "qdrant")
    assert ingest(DOCUMENTS, FakeEmbedder(), store).added == 30
    store.close()
    return folder


def assert_intact(store: Store) -> None:
    """All documents are there, and the first one is found by its own vector."""
    assert store.recipe() == FakeEmbedder().recipe
    assert store.count() == 30
    assert store.search(query_vector(DOCUMENTS[3]), 1)[0].document == DOCUMENTS[3]
    store.close()


CREATE_STORES = """
import sys
from qwen3vl import StoreError, ingest, open_store
from tests.support.fake_embedder import FakeEmbedder, passages

print("ready", flush=True)
for location in map(str.strip, sys.stdin):
    try:
        print(ingest(passages(3), FakeEmbedder(), open_store(location)).failed, flush=True)
    except StoreError as error:
        print(error, flush=True)
"""


@pytest.mark.slow
def test_processes_create_one_chroma_store_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CREATE_STORES]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for attempt in range(8):  # the race is lost in about every second attempt
            folder = tmp_path / str(attempt)
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"chroma:{folder}\n")
            assert [process.stdout and process.stdout.readline() for process in processes] == ["[]\n"] * 3
            store = open_store(f"chroma:{folder}")
            assert store.count() == 3
            store.close()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_client_that_opens_an_open_local_folder_leaves_its_collections_alone(tmp_path: Path) -> None:
    folder = make_store("local", tmp_path / "store")
    store = open_store(str(folder))
    with pytest.raises(StoreError, match="open in another process"):
        open_store(str(folder))
    assert_intact(store)
    assert_intact(open_store(str(folder)))


SEARCH = """
import sys
from qwen3vl import StoreError, ingest, open_store
from tests.support.fake_embedder import FakeEmbedder, passages, query_vector

store = open_store("{database}:" + sys.argv[1])
documents = passages(30)
assert store.recipe() == FakeEmbedder().recipe
assert store.count() == 30
assert store.search(query_vector(documents[3]), 1)[0].document == documents[3]
assert ingest(documents, FakeEmbedder(), store).unchanged == 30
for write in (
    lambda: store.delete([store.search(query_vector(documents[3]), 1)[0].id]),
    lambda: store.delete_where({{"kind": "text"}}),
    lambda: open_store("{database}:" + sys.argv[1], "another").create(FakeEmbedder().recipe),
):
    try:
        write()
    except StoreError as error:
        assert "cannot be written" in str(error) and sys.argv[1] in str(error), error
    else:
        raise AssertionError("a write succeeded")
assert store.count() == 30
print("searched")
"""


@pytest.mark.parametrize("database", DATABASES)
def test_store_in_a_read_only_folder_is_searched_and_not_written(database: str, tmp_path: Path) -> None:
    folder = make_store(database, tmp_path / "store")
    assert run_with_read_only_folder(folder, SEARCH.format(database=database.replace("local", "qdrant"))) == "searched"
    assert_intact(open_store(location(database, folder)))


OPEN_AND_LIST = """
import os, sys, tempfile
from qwen3vl import StoreError, open_store

tempfile.tempdir = tempfile.mkdtemp()
try:
    store = open_store("{database}:" + sys.argv[1])
except StoreError as error:
    print(error)
else:
    print(store.count(), len(os.listdir(tempfile.tempdir)))
    store.close()
print(os.listdir(tempfile.tempdir))
"""


@pytest.mark.parametrize(
    ("database", "file", "error"),
    [
        (
            "qdrant",
            "collections/qwen3vl/shard/edge_config.json",
            "shard cannot be opened (IO Error: Failed to deserialize",
        ),
        ("local", "collection/qwen3vl/storage.sqlite", "storage.sqlite cannot be read (file is not a database)"),
        (
            "chroma",
            "chroma.sqlite3",
            "chroma.sqlite3 cannot be copied to be searched (database disk image is malformed)",
        ),
    ],
)
def test_temporary_folder_of_a_read_only_store_is_removed(database: str, file: str, error: str, tmp_path: Path) -> None:
    folder = make_store(database, tmp_path / "store")
    assert run_with_read_only_folder(folder, OPEN_AND_LIST.format(database=database.replace("local", "qdrant"))).split(
        "\n"
    ) == ["30 1", "[]"]
    damaged = folder / file
    damaged.write_bytes(damaged.read_bytes()[: 4096 if file.endswith("sqlite3") else 9])
    output = run_with_read_only_folder(folder, OPEN_AND_LIST.format(database=database.replace("local", "qdrant")))
    assert error in output
    assert output.endswith("\n[]")


@pytest.mark.parametrize("database", DATABASES)
def test_read_only_folder_without_a_store_is_an_error(database: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from qwen3vl import StoreError, open_store\n"
        f"try: open_store('{location(database, '')}' + sys.argv[1])\n"
        "except StoreError as error: print(error)"
    )
    (tmp_path / "empty").mkdir()
    assert "no store in" in run_with_read_only_folder(tmp_path / "empty", code)


@pytest.mark.parametrize("database", DATABASES)
def test_use_of_a_closed_store_is_an_error_that_says_so(database: str, tmp_path: Path) -> None:
    store = open_store(location(database, make_store(database, tmp_path / "store")))
    assert store.count() == 30
    store.close()
    for use in (store.count, lambda: store.search(query_vector(DOCUMENTS[0])), lambda: store.delete_where({"a": 1})):
        with pytest.raises(StoreError, match="is closed"):
            use()
    store.close()


@pytest.mark.parametrize("database", DATABASES)
def test_file_in_the_place_of_a_folder_is_an_error(database: str, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("text")
    for path in (tmp_path / "store", tmp_path / "store" / "below" / "it"):
        with pytest.raises(StoreError, match=f"{tmp_path / 'store'} is a file, and a store is a folder"):
            open_store(location(database, path))


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("target", ["unmounted", "link"])
def test_link_that_leads_to_nothing_is_an_error(database: str, target: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / target)
    for path in (tmp_path / "link", tmp_path / "link" / "store"):
        with pytest.raises(StoreError, match=f"{tmp_path / 'link'} is a link to a place that does not exist"):
            open_store(location(database, path))


@pytest.fixture(scope="module")
def qdrant_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store("local", tmp_path_factory.mktemp("damaged") / "qdrant")


def test_torn_qdrant_metadata_are_restored(
    qdrant_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (qdrant_folder / "meta.json").read_bytes()
    for size in (0, 1, 2, 15, len(content) // 2, len(content) - 1):
        folder = shutil.copytree(qdrant_folder, tmp_path / str(size))
        (folder / "meta.json").write_bytes(content[:size])
        assert_intact(open_store(str(folder)))
        assert json.loads((folder / "meta.json").read_bytes()) == json.loads(content) | {"text_indexes": {}}
        assert not size or (folder / "meta.json.damaged").read_bytes() == content[:size]
        assert "was restored: qwen3vl" in caplog.messages.pop()
        caplog.clear()


@pytest.mark.parametrize("metadata", [None, b"", b'{"collections": {"qwen', b"\x80\x00", b"[]", b'{"collections": {}}'])
def test_qdrant_points_without_metadata_are_taken_over_by_the_next_ingestion(
    qdrant_folder: Path, tmp_path: Path, metadata: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(qdrant_folder, tmp_path / "store")
    (folder / "meta.json.backup").unlink()
    if metadata is None:
        (folder / "meta.json").unlink()
    else:
        (folder / "meta.json").write_bytes(metadata)
    store = open_store(str(folder))
    assert "index the same documents with the same model again" in caplog.text
    embedder = FakeEmbedder()
    report = ingest(DOCUMENTS, embedder, store)
    assert (report.added, report.unchanged, embedder.embedded) == (0, 30, [])
    assert_intact(store)


@pytest.mark.parametrize(
    ("changes", "layout", "reason"),
    [
        ({"instruction": "Another instruction."}, Layout(), "another model, or other settings"),
        ({"dimensions": 16}, Layout(), "other names or sizes"),
        ({}, Layout(short=8), "other names or sizes"),
    ],
)
def test_qdrant_points_of_another_recipe_or_layout_are_not_taken_over(
    qdrant_folder: Path, tmp_path: Path, changes: dict[str, object], layout: Layout, reason: str
) -> None:
    folder = shutil.copytree(qdrant_folder, tmp_path / "store")
    (folder / "meta.json").write_text('{"collections": {}, "aliases": {}}')
    client = QdrantClient(path=str(folder))
    with pytest.raises(StoreError, match=f"do not fit the new one: .*{reason}"):
        QdrantStore(client, layout=layout).create(FakeEmbedder(**changes).recipe)
    QdrantStore(client).create(FakeEmbedder().recipe)
    client.close()
    assert_intact(open_store(str(folder)))


@pytest.mark.parametrize("tenant", ["ann", None])
def test_qdrant_points_of_tenants_are_taken_over(tmp_path: Path, tenant: str | None) -> None:
    folder = tmp_path / "store"
    client = QdrantClient(path=str(folder))
    for name in ("ann", "bob"):
        assert ingest(DOCUMENTS, FakeEmbedder(), QdrantStore(client, tenant=name)).added == 30
    client.close()
    (folder / "meta.json").write_text('{"collections": {}, "aliases": {}}')
    client = QdrantClient(path=str(folder))
    store = QdrantStore(client, tenant=tenant)
    store.create(FakeEmbedder().recipe)
    assert store.count() == (30 if tenant else 60)
    client.close()


@pytest.mark.parametrize("size", [None, 0, 1, 10, 100, 4096, -4096])
def test_damaged_qdrant_points_are_an_error_and_not_an_empty_store(
    qdrant_folder: Path, tmp_path: Path, size: int | None
) -> None:
    folder = shutil.copytree(qdrant_folder, tmp_path / "store")
    file = folder / "collection" / "qwen3vl" / "storage.sqlite"
    content = file.read_bytes()
    file.unlink()
    if size is not None:
        file.write_bytes(content[:size])
    reason = "cannot be read" if size and size != 1 else "missing or empty"
    with pytest.raises(StoreError, match=rf"storage\.sqlite.* {reason}.*index the documents again"):
        open_store(str(folder))
    assert file.exists() == (size is not None)
    assert size is None or file.read_bytes() == content[:size]
    # The way that the message describes.
    shutil.move(file.parent, tmp_path / "moved")
    client = QdrantClient(path=str(folder))
    client.delete_collection("qwen3vl")
    client.close()
    make_store("local", folder)


@pytest.mark.parametrize("size", [None, 0, 1, 10, 100, 4096, -4096])
def test_damaged_chroma_database_is_an_error_and_not_an_empty_store(tmp_path: Path, size: int | None) -> None:
    folder = make_store("chroma", tmp_path / "store")
    file = folder / "chroma.sqlite3"
    content = file.read_bytes()
    file.unlink()
    if size is not None:
        file.write_bytes(content[:size])
    reason = "is damaged" if size and size != 1 else "is missing or empty"
    with pytest.raises(StoreError, match=rf"chroma\.sqlite3 {reason}.*index\s+the documents again"):
        open_store(f"chroma:{folder}")
    assert size is None or file.read_bytes() == content[:size]
    file.write_bytes(content)  # restored from a backup: the same process opens it
    assert_intact(open_store(f"chroma:{folder}"))


@pytest.mark.parametrize("database", DATABASES)
def test_folder_of_a_creation_that_was_killed_is_a_new_store(database: str, tmp_path: Path) -> None:
    files = {
        "chroma": ["chroma.sqlite3"],
        "local": [".lock", "meta.json", "collection/qwen3vl/storage.sqlite"],
        "qdrant": [".lock", "collections/.new-qwen3vl/shard/edge_config.json"],
    }
    for file in files[database]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert_intact(open_store(location(database, make_store(database, tmp_path))))


def test_any_number_of_ids_is_looked_up_in_a_chroma_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"chroma:{tmp_path / 'store'}")
    documents = passages(3)
    ingest(documents, FakeEmbedder(), store)
    stored = [point.id for point in store.scan()]
    ids = [stored[0], *(str(UUID(int=number)) for number in range(33_000)), *stored[1:]]
    assert store.existing(ids) == store.vectors(ids).keys() == store.documents(ids).keys() == {*stored}
    monkeypatch.setattr("qwen3vl_chroma.core._MAX_REQUEST_IDS", 40_000)
    with pytest.raises(StoreError, match=r"Chroma fails: .*too many SQL variables") as caught:
        store.existing(ids)
    assert not caught.value.transient
    assert "attempts" not in str(caught.value)


def test_text_filters_scan_and_delete_in_chroma(tmp_path: Path) -> None:
    store = open_store(f"chroma:{tmp_path / 'store'}")
    ingest(passages(9), FakeEmbedder(), store)
    assert {point.source for point in store.scan({"$contains": "passage 4"})} == {"notes/1.md"}
    assert list(store.scan({"$contains": "passage 4", "even": False})) == []
    store.delete_where({"$not_contains": "passage 4", "even": True})
    assert store.count() == 5
    store.delete_where({"$contains": "passage 4"})
    assert store.count() == 4
