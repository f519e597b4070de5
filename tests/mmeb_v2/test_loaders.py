"""What the loaders read from files in the published formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.loaders import load_dataset
from tests.mmeb_v2.data_sets import WRITERS
from tests.mmeb_v2.image_data import CLASSES


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all data sets that are drawn for the tests."""
    folder = tmp_path_factory.mktemp("mmeb-v2")
    for write in WRITERS.values():
        write(folder)
    return folder


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
