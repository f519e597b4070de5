"""Metadata of uploads that no store can keep: the upload is refused, and nothing is kept of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.library_server import LibraryServer, serve_library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    with serve_library(tmp_path_factory.mktemp("library"), reranked=False) as library:
        yield library


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ('{"a": ' + "[" * 900 + "]" * 900 + "}", "nested more than 64 levels deep"),
        ('{"a": NaN}', "is nan, which JSON cannot hold"),
        ('{"a": [1e400]}', "is inf, which JSON cannot hold"),
        ('{"a": "\\ud800"}', "has a lone surrogate"),
        ('{"\\ud800": 1}', "has a lone surrogate"),
        ('{"": 1}', "keys that are empty"),
        ('{"a": 9223372036854775808}', "more than 64 bits"),
    ],
)
def test_metadata_that_cannot_be_stored(library: LibraryServer, metadata: str, message: str) -> None:
    client = library.server.client
    form = client.post("/v1/documents", files={"file": ("a.txt", b"a")}, data={"metadata": metadata})
    body = '{"documents": [{"url": "data:,a", "source": "a.txt", "metadata": ' + metadata + "}]}"
    reference = client.post("/v1/documents", content=body, headers={"Content-Type": "application/json"})
    for response in (form, reference):
        assert response.status_code == 400, response.text
        assert message in response.json()["message"]
    assert library.media_files() == []
    for folder in ("incoming", "jobs"):
        assert list((library.media / folder).iterdir()) == []
