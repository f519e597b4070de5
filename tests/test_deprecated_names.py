"""Former public names keep working, with a warning, and foreign metadata with these names keep their meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import Document, EngineSettings, RankedDocument, Search, StoreError, open_store
from qwen3vl.adapters.media_keys import document_from_metadata
from qwen3vl.stores.failures import transport_failure
from qwen3vl.stores.types import PointRef


def test_former_arguments_and_attributes_of_a_document() -> None:
    former: dict[str, Any] = {"place": "page=3", "content": "abc"}
    with (
        pytest.warns(DeprecationWarning, match="use 'locator'"),
        pytest.warns(DeprecationWarning, match="'content_hash'"),
    ):
        document = Document("a.pdf", "page", **former)
    assert document == Document("a.pdf", "page", content_hash="abc", locator="page=3")
    with pytest.warns(DeprecationWarning, match="use Document.locator"):
        assert document.place == "page=3"
    other: dict[str, Any] = {"place": "page=4"}
    with pytest.warns(DeprecationWarning, match="use 'locator'"):
        assert replace(document, **other).locator == "page=4"


def test_former_and_present_name_of_an_argument_exclude_each_other() -> None:
    former: dict[str, Any] = {"place": ":memory:"}
    with pytest.raises(TypeError, match="got both 'location' and its former name 'place'"):
        open_store(location=":memory:", **former)


def test_former_names_of_stores() -> None:
    vector = np.ones(2, dtype=np.float32)
    former: dict[str, Any] = {"place": ":memory:"}
    with pytest.warns(DeprecationWarning, match="use 'location'"):
        open_store(**former).close()
    with pytest.warns(DeprecationWarning, match="use PointRef.locator"):
        assert PointRef("1", "a.pdf", "page=3").place == "page=3"
    passing: dict[str, Any] = {"passing": True}
    with pytest.warns(DeprecationWarning, match="use 'transient'"):
        error = StoreError("gone", **passing)
    with pytest.warns(DeprecationWarning, match=r"use StoreError\.transient"):
        assert error.passing
    grouping: dict[str, Any] = {"one_per": "source"}
    with pytest.warns(DeprecationWarning, match="use 'group_by'"):
        assert replace(Search(vector), **grouping).group_by == "source"


def test_ranked_document_is_read_like_a_pair() -> None:
    ranked = RankedDocument(2, 0.5)
    index, score = ranked
    assert (index, score) == (ranked[0], ranked[1]) == (2, 0.5)
    assert len(ranked) == 2
    assert [tuple(document) for document in [ranked]] == [(2, 0.5)]


def test_metadata_with_only_one_former_name_stay_metadata() -> None:
    document = document_from_metadata("a city", {"place": "Berlin"})
    assert document.metadata == {"place": "Berlin"}
    assert document.locator == ""
    assert document.to_payload()["metadata"]["place"] == "Berlin"


def test_payload_of_a_former_version_wins_over_foreign_metadata() -> None:
    metadata = {"source": "a.pdf", "place": "page=3", "content": "abc", "locator": "shelf 5"}
    document = Document.from_payload({"page_content": "", "metadata": metadata})
    assert (document.locator, document.content_hash) == ("page=3", "abc")


@pytest.mark.parametrize("name", ["max_length", "max_pixels"])
def test_limit_of_zero_is_refused(name: str) -> None:
    settings = EngineSettings(**{name: 0})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=name):
        settings.limits(max_length=8192, max_pixels=1_000_000)


def test_only_transport_errors_are_about_certificates(tmp_path: Path) -> None:
    assert transport_failure(ValueError("cannot store bad certificate")) is None
    assert transport_failure(OSError(28, "No space left on device", str(tmp_path / "certificates"))) is None
