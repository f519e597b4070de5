"""`read` gives the documents of `Loader`: from folders, object stores and manifests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qwen3vl_ray import Embed, read

from qwen3vl import Document, Embedder, Loader, MediaPolicy
from qwen3vl.documents import LoadFailure

pytestmark = pytest.mark.usefixtures("local_ray")


def loaded(folder: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    """What `Loader` gives for a folder, by id; failures by source."""
    rows: dict[str, dict[str, Any]] = {}
    for item in Loader(**settings).load(folder):
        if isinstance(item, Document):
            rows[item.id] = item.to_payload()
    return rows


def payloads(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The payloads of rows without an error, by id."""
    fields = ("source", "kind", "content_hash", "locator", "text", "image", "video", "fused")
    return {
        row["id"]: Document(**{name: row[name] for name in fields}, metadata=json.loads(row["metadata"])).to_payload()
        for row in rows
        if row["error"] is None
    }


def test_a_folder_is_read_as_the_loader_reads_it(library_folder: Path) -> None:
    rows = read([library_folder, library_folder / "*.png"], loader=Loader(segment_seconds=1)).take_all()
    assert payloads(rows) == loaded(library_folder, segment_seconds=1)
    assert len({row["video"] for row in rows if row["kind"] == "clip"}) > 2


def test_files_that_cannot_be_loaded_are_rows_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing else")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "fine.txt").write_text("a text")
    (tmp_path / "table.csv").write_text("a,b\n")
    paths: list[str | Path] = [tmp_path, tmp_path / "missing", f"file://{tmp_path}/url.txt"]
    rows = {Path(row["source"]).name: row for row in read(paths).take_all()}
    assert {name for name, row in rows.items() if row["error"]} == {"broken.pdf", "latin.txt", "missing", "url.txt"}
    assert "leave out file://" in rows["url.txt"]["error"]
    assert "not UTF-8" in rows["latin.txt"]["error"]
    assert rows["fine.txt"]["text"] == "a text"
    assert "table.csv" not in rows


def test_a_name_that_is_not_utf8_is_the_failure_of_its_file(tmp_path: Path) -> None:
    """As in one process; Arrow has no place for such names."""
    (tmp_path / "fine.txt").write_text("a text")
    for name in (b"caf\xe9.txt", b"caf\xe9.jsonl"):
        try:
            Path(os.fsdecode(os.fsencode(tmp_path / "_")[:-1] + name)).write_text('{"text": "another"}')
        except OSError:
            pytest.skip("this file system has only names in UTF-8")
    failures = [item for item in Loader().load(tmp_path / "*.txt") if isinstance(item, LoadFailure)]
    assert [failure.source for failure in failures] == [f"{tmp_path}/caf\\udce9.txt"]
    rows = read([tmp_path / "*.txt", tmp_path / "caf*.jsonl", f"local://{tmp_path}/caf*.txt"]).take_all()
    errors = sorted((row["source"], row["error"]) for row in rows if row["error"])
    assert errors == [
        (f"{tmp_path}/caf\\udce9.jsonl", f"the manifest cannot be read: {failures[0].reason}"),
        (f"{tmp_path}/caf\\udce9.txt", failures[0].reason),
        (f"local://{tmp_path}/caf\\udce9.txt", failures[0].reason),
    ]
    assert [row["text"] for row in rows if not row["error"]] == ["a text"]


def test_an_object_store_is_read_under_its_urls(library_folder: Path, tiny_embedder: Embedder) -> None:
    """`local` is a file system of fsspec that the models do not open themselves."""
    url = f"local://{library_folder}"
    rows = [*read(url).take_all(), *read(f"{url}/nothing*").take_all()]
    plain = loaded(library_folder)
    found = payloads(rows)
    in_plain_form = json.loads(json.dumps(list(found.values())).replace("local://", ""))
    key = json.dumps
    assert sorted(map(key, in_plain_form)) == sorted(map(key, plain.values()))
    assert [row["error"] for row in rows if row["error"]] == ["there is no such file, and none below it; check the URL"]
    table = pa.Table.from_pylist([row for row in rows if row["locator"] == "page=2" or row["kind"] == "clip"])
    assert table.num_rows == 3
    remote = Embed("tiny", device="cpu")(table).to_pylist()
    local = Embed("tiny", device="cpu")(
        pa.Table.from_pylist(json.loads(json.dumps(table.to_pylist()).replace("local://", "")))
    )
    assert np.allclose([row["vector"] for row in remote], local["vector"].to_pylist(), atol=1e-6)
    refused = Embed("tiny", device="cpu", policy=MediaPolicy(urls=False))(table).to_pylist()
    assert all("the media policy forbids URLs" in row["error"] for row in refused)


def test_manifests_name_documents_and_files(library_folder: Path, tmp_path: Path) -> None:
    star = library_folder / "star.png"
    (tmp_path / "near.png").write_bytes(star.read_bytes())
    lines = [
        {"image": "near.png", "album": "summer", "metadata": {"year": 2020}},
        {"path": str(library_folder / "slides.pdf"), "author": "Ada"},
        {"text": "a text", "source": "notes", "locator": "lines=1,2"},
        {"kind": "picture"},
    ]
    jsonl = tmp_path / "manifest.jsonl"
    jsonl.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "{broken\n")
    pq.write_table(pa.table({"text": ["one", "two", None], "number": [1, 2, 3]}), tmp_path / "manifest.parquet")
    rows = read([jsonl, tmp_path / "*.parquet", tmp_path / "gone.jsonl", star]).take_all()
    by_name = {f"{row['source']}#{row['locator'] or ''}".removeprefix(f"{tmp_path}/"): row for row in rows}
    near = by_name["near.png#"]
    assert (near["kind"], near["image"]) == ("picture", str(tmp_path / "near.png"))
    assert json.loads(near["metadata"]) == {"year": 2020, "album": "summer"}
    second_page = by_name[f"{library_folder / 'slides.pdf'}#page=2"]
    assert json.loads(second_page["metadata"]) == {"page": 2, "pages": 2, "author": "Ada"}
    assert by_name["notes#lines=1,2"]["text"] == "a text"
    assert [(row["text"], json.loads(row["metadata"])) for row in rows if row["text"] in ("one", "two")] == [
        ("one", {"number": 1}),
        ("two", {"number": 2}),
    ]
    assert by_name[f"{star}#"]["error"] is None
    errors = {name: row["error"] for name, row in by_name.items() if row["error"]}
    assert errors.keys() == {"manifest.jsonl#row=4", "manifest.jsonl#row=5", "manifest.parquet#row=3", "gone.jsonl#"}
    assert "no JSON" in errors["manifest.jsonl#row=5"]
    assert "cannot be read" in errors["gone.jsonl#"]


def test_rows_that_no_table_can_hold_are_failures(tmp_path: Path) -> None:
    lines = [
        {"path": "a\ud800.png"},
        {"path": 5},
        {"source": "b\ud800", "text": ""},
        {"text": "c\ud800"},
        {"source": "d", "error": ["no text"]},
        {"text": "a text"},
    ]
    (tmp_path / "list.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    rows = read(tmp_path / "list.jsonl").take_all()
    assert [row["text"] for row in rows if not row["error"]] == ["a text"]
    errors = [f"{row['source']} {row['locator']} {row['error']}" for row in rows if row["error"]]
    assert len(errors) == 5
    for named, error in zip(["a\\ud800.png", "row=2", "b\\ud800", "row=4", "row=5"], errors, strict=True):
        assert named in error


def test_an_empty_folder_is_an_empty_dataset(tmp_path: Path) -> None:
    assert read(tmp_path).take_all() == []
