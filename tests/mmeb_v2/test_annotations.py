"""Finding and reading the annotations of hub repositories in the layouts in which they are published and saved."""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwen3vl.errors import InputError, Qwen3VLError
from qwen3vl.evaluation.mmeb_v2.annotation_files import annotation_folder
from qwen3vl.evaluation.mmeb_v2.annotations import read_rows
from qwen3vl.evaluation.mmeb_v2.specs import Source
from tests.mmeb_v2.published_files import write_split

TEST = Source("owner/name", "test")
ROWS = [{"id": number, "text": f"row {number}"} for number in range(5)]
OTHER_ROWS = [{"id": -1, "text": "another"}]


def read(data: Path, source: Source = TEST, columns: Sequence[str] = ("id", "text"), **options: Any) -> list[Any]:
    return list(read_rows(data, source, columns, **options))


def write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def test_parquet_files_that_a_readme_names(tmp_path: Path) -> None:
    write_split(tmp_path, TEST, ROWS, files=3)
    write_split(tmp_path, Source("owner/name", "train"), OTHER_ROWS)
    write_split(tmp_path, Source("owner/name", "test", "other"), OTHER_ROWS)
    assert read(tmp_path) == ROWS
    assert read(tmp_path, Source("owner/name", "test", "other")) == OTHER_ROWS
    assert read(tmp_path, columns=("text",), max_rows=2) == [{"text": "row 0"}, {"text": "row 1"}]
    assert read(tmp_path, columns=("id",), optional=("text", "language"), max_rows=1) == ROWS[:1]


SPLIT_PATHS = "  data_files:\n  - split: test\n    path:\n    - b.jsonl\n    - a.jsonl"


@pytest.mark.parametrize(
    ("configs", "split"),
    [
        (f"- config_name: only\n{SPLIT_PATHS}", "test"),
        (f"- config_name: x\n  data_files: c.jsonl\n- config_name: y\n  default: true\n{SPLIT_PATHS}", "test"),
        ("- config_name: default\n  data_files: [b.jsonl, a.jsonl]", "train"),
        ("- config_name: default\n  data_dir: files", "test"),
    ],
)
def test_forms_of_readmes(configs: str, split: str, tmp_path: Path) -> None:
    """`datasets` reads these forms in the same way."""
    folder = annotation_folder(tmp_path, TEST)
    (folder / "files").mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{configs}\n---\n# Title\n", encoding="utf-8")
    for name, rows in {"b": ROWS[:2], "a": ROWS[2:], "c": OTHER_ROWS, "files/test": ROWS}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read(tmp_path, Source("owner/name", split)) == ROWS


def test_a_configuration_that_the_readme_does_not_have(tmp_path: Path) -> None:
    write_split(tmp_path, Source("owner/name", "test", "RefCOCO-Matching"), ROWS)
    with pytest.raises(InputError, match="no files of the split 'test' of the configuration 'RefCOCO'"):
        read(tmp_path, Source("owner/name", "test", "RefCOCO"))


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (None, {"data/test-00000-of-00002.parquet": ROWS[:3], "data/test-00001-of-00002.parquet": ROWS[3:]}),
        (None, {"test.parquet": ROWS, "train.parquet": OTHER_ROWS}),
        ("one", {"one/test-00000.parquet": ROWS, "two/test-00000.parquet": OTHER_ROWS}),
        ("one", {"one-test.parquet": ROWS, "one-more-test.parquet": OTHER_ROWS}),
        ("one", {"json/one_test.parquet": ROWS, "json/two_test.parquet": OTHER_ROWS}),
    ],
)
def test_files_without_a_readme(config: str | None, names: Mapping[str, Any], tmp_path: Path) -> None:
    source = Source("owner/name", "test", config)
    for name, rows in names.items():
        write_table(annotation_folder(tmp_path, source) / name, rows)
    assert read(tmp_path, source) == ROWS


def test_the_only_split_is_train(tmp_path: Path) -> None:
    train = Source("owner/name", "train", "one")
    write_table(annotation_folder(tmp_path, train) / "json" / "one.parquet", ROWS)
    assert read(tmp_path, train) == ROWS
    with pytest.raises(InputError, match="no files of the split 'test'"):
        read(tmp_path, Source("owner/name", "test", "one"))


def test_validation_split_by_another_name(tmp_path: Path) -> None:
    source = Source("owner/name", "val")
    write_table(annotation_folder(tmp_path, source) / "data" / "validation-00000-of-00001.parquet", ROWS)
    assert read(tmp_path, source) == ROWS


@pytest.mark.parametrize("subfolder", ["", "queries"])
def test_what_datasets_has_saved(subfolder: str, tmp_path: Path) -> None:
    source = Source("owner/name", "test", subfolder or "test_1k")
    folder = annotation_folder(tmp_path, source) / subfolder
    folder.mkdir(parents=True)
    names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
    for name, rows in zip(names, (ROWS[:3], ROWS[3:]), strict=True):
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(folder / name), "wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    assert read(tmp_path, source) == ROWS


def test_list_of_json_objects(tmp_path: Path) -> None:
    file = annotation_folder(tmp_path, TEST) / "test.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(ROWS))
    assert read(tmp_path) == ROWS


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    folder = annotation_folder(tmp_path, TEST)
    with pytest.raises(InputError, match="hf download owner/name --repo-type dataset --local-dir"):
        read(tmp_path)
    write_table(folder / "test.parquet", ROWS)
    with pytest.raises(InputError, match="has no column 'answer'; it has id, text"):
        read(tmp_path, columns=("id", "answer"))
    (folder / "test.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match=r"test\.parquet cannot be read: .* Download it again"):
        read(tmp_path)
    (folder / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(InputError, match="the YAML at the top of"):
        read(tmp_path)


@pytest.mark.parametrize("missing", ["pyarrow", "yaml"])
def test_packages_that_are_not_installed(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_split(tmp_path, TEST, ROWS)
    real_import = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return real_import(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Qwen3VLError, match=r'pip install "\.\[mmeb\]"'):
        read(tmp_path)
