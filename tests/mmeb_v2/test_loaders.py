"""What the loaders of images and documents read from files in the published formats.

That queries and candidates are the official ones is checked in `test_official_answers.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.annotation_files import annotation_folder
from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.loaders import load_dataset
from tests.mmeb_v2 import document_data, image_data
from tests.mmeb_v2.document_data import LONG_NAME
from tests.mmeb_v2.image_data import CLASSES
from tests.mmeb_v2.published_files import draw, write_split

NUMBERED = DATASETS["ViDoRe_esg_reports_human_labeled_v2"]
NAMED = DATASETS["VisRAG_ArxivQA"]


def test_image_classification(data: Path) -> None:
    loaded = load_dataset(DATASETS["VOC2007"], data)
    assert len(loaded.queries) == 4
    query = loaded.queries[1]
    assert query.input["instruction"] == "Identify the object shown in the image"
    assert Path(query.input["image"]).is_file()
    assert query.candidate_names == [*CLASSES[1:], CLASSES[0]]
    assert query.labels == ["aeroplane"]
    assert query.rel_scores is None
    assert list(loaded.candidates.items()) == [(name, {"text": name}) for name in CLASSES]


def test_candidates_of_several_queries_are_there_once(data: Path) -> None:
    loaded = load_dataset(DATASETS["VisDial"], data)
    names = [name for query in loaded.queries for name in query.candidate_names]
    assert len(names) == 20
    assert list(loaded.candidates) == list(dict.fromkeys(names))
    assert {frozenset(candidate) for candidate in loaded.candidates.values()} == {frozenset({"image"})}


def test_captions_that_are_empty(data: Path) -> None:
    loaded = load_dataset(DATASETS["WebQA"], data)
    assert [name for name, candidate in loaded.candidates.items() if "text" not in candidate] == ["WebQA/2.png"]


def test_images_and_texts_that_do_not_match(tmp_path: Path) -> None:
    row = image_data.query_row("", "", "", ["a", "b"], ["1.png"])
    write_split(tmp_path, DATASETS["CIRR"].source, [row])
    with pytest.raises(InputError, match="query 0 of CIRR has 1 images and 2 texts as candidates"):
        load_dataset(DATASETS["CIRR"], tmp_path)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("VOC2007", {"tgt_text": None}),
        ("VOC2007", {"tgt_text": []}),
        ("VOC2007", {"qry_img_path": 7}),
        ("MSCOCO_t2i", {"tgt_img_path": []}),
        ("MSCOCO_t2i", {"tgt_text": None}),
        ("CIRR", {"tgt_text": [None]}),
    ],
)
def test_rows_of_another_form_name_the_data_set(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    row = {**image_data.query_row("", "", "1.png", ["a"], ["1.png"]), **changes}
    write_json(tmp_path, name, [row])
    with pytest.raises(InputError, match=rf"{name} cannot be read: .*MMEB_Test_Instruct.*Download the annotations"):
        load_dataset(DATASETS[name], tmp_path)


@pytest.mark.parametrize("row", [1, [1, 2], None])
def test_rows_that_are_no_objects_name_the_data_set(row: Any, tmp_path: Path) -> None:
    write_json(tmp_path, "VOC2007", [row])
    with pytest.raises(InputError, match=r"VOC2007 cannot be read"):
        load_dataset(DATASETS["VOC2007"], tmp_path)


def test_a_data_set_without_rows_is_an_error(tmp_path: Path) -> None:
    write_json(tmp_path, "VOC2007", [])
    with pytest.raises(InputError, match=r"VOC2007 has no queries: the files in .* are empty"):
        load_dataset(DATASETS["VOC2007"], tmp_path)


def write_json(data: Path, name: str, rows: Sequence[Any]) -> None:
    source = DATASETS[name].source
    folder = annotation_folder(data, source) / str(source.config)
    folder.mkdir(parents=True)
    (folder / f"{source.split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_missing_pages_are_written_from_the_annotations(tmp_path: Path) -> None:
    document_data.write_vidore_v2(tmp_path)
    folder = tmp_path / NUMBERED.media
    folder.mkdir(parents=True)
    there = draw(1, 32, 32)
    there.save(folder / "3.png")
    loaded = load_dataset(NUMBERED, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [f"{number}.png" for number in range(9)]
    assert Image.open(folder / "3.png").tobytes() == there.tobytes()
    assert Image.open(folder / "4.png").tobytes() == draw(224, 96, 128).tobytes()
    assert list(loaded.candidates) == [5, 1, 3, 8, 0, 4, 6, 7, 2]
    assert (loaded.queries[2].labels, loaded.queries[2].rel_scores) == ([8, 0, 4], [1, 2, 1])


def test_long_names_of_pages(data: Path) -> None:
    loaded = load_dataset(NAMED, data)
    path = Path(loaded.candidates[f"{LONG_NAME}_3.jpg"]["image"])
    assert path.name.startswith(f"{LONG_NAME[:50]}_")
    assert (len(path.stem), path.suffix, path.is_file()) == (59, ".jpg", True)
    assert loaded.queries[2].labels == ["figure.6.png"]


def test_errors_of_documents(tmp_path: Path) -> None:
    document_data.write_vidore_v2(tmp_path)
    qrels = replace(NUMBERED.source, config="qrels")
    corpus = replace(NUMBERED.source, config="corpus")
    write_split(tmp_path, qrels, [{"query-id": 0, "corpus-id": 77, "score": 1}])
    with pytest.raises(InputError, match=r"name the page 77, which is neither in the corpus nor a file .*77\.png"):
        load_dataset(NUMBERED, tmp_path)
    write_split(tmp_path, qrels, [{"query-id": 0, "corpus-id": 1, "score": 0}])
    with pytest.raises(InputError, match=r"query 0 of .* has no relevant page in qrels"):
        load_dataset(NUMBERED, tmp_path)
    write_split(tmp_path, corpus, [{"corpus-id": 9, "image": {"bytes": b"none", "path": "9.png"}}] * 2, files=2)
    with pytest.raises(InputError, match=r"page 9 of .* has no image at .*9\.png, and the one in the annotations"):
        load_dataset(NUMBERED, tmp_path)
    assert not (tmp_path / NUMBERED.media / "9.png").exists()
