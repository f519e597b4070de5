"""The data sets that are drawn for these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mmeb_v2.data_sets import WRITERS


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them in the published layout."""
    folder = tmp_path_factory.mktemp("mmeb-v2")
    for write in WRITERS.values():
        write(folder)
    return folder
