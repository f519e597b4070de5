"""Whatever one document does to an ingestion, it is that document's failure; the documents beside it are stored."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import Document, Point, Store, ingest, open_store
from qwen3vl.documents import LoadFailure
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, passages, query_vector
from tests.support.store_backends import OpenStore


@pytest.fixture
def memory_store() -> Iterator[Store]:
    with closing(open_store(":memory:")) as store:
        yield store


def nested(depth: int, container: Callable[[Any], Any]) -> Any:
    """Return a value within containers within containers."""
    value: Any = 1
    for _ in range(depth):
        value = container(value)
    return value


def cyclic_list() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


class FailingMapping(Mapping[str, Any]):
    """Metadata that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise OSError("the database is closed")

    def __iter__(self) -> Iterator[str]:
        raise OSError("the database is closed")

    def __len__(self) -> int:
        return 1


class FailingDocument(Document):
    """A document whose input raises an error."""

    @property
    def input(self) -> dict[str, str]:
        raise ZeroDivisionError("no input")


class NoName:
    """An object of the caller that raises an error whatever is done to it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]


def with_metadata(value: Any) -> Document:
    return Document("bad", "text", text="bad", metadata={"key": value})


BAD: list[tuple[Any, str]] = [
    (with_metadata(nested(500, lambda value: [value])), "more than 64 levels"),
    (with_metadata(nested(500, lambda value: {"a": value})), "more than 64 levels"),
    (with_metadata(nested(100_000, lambda value: (value,))), "more than 64 levels"),
    (with_metadata(cyclic_list()), "contains itself"),
    (with_metadata(float("nan")), "'key' is nan, which JSON cannot hold"),
    (with_metadata([{"a": float("inf")}]), r"'key'\[0\]\['a'\] is inf"),
    (with_metadata(2**64), "integer of more than 64 bits"),
    (with_metadata(10**5000), "integer of more than 64 bits"),
    (with_metadata({1, 2}), "of type set, which JSON cannot hold"),
    (with_metadata(b"x"), "of type bytes"),
    (with_metadata(np.float32(1)), r"of type numpy\.float32"),
    (with_metadata({(1, 2): 3}), r"has the key \(1, 2\) of type tuple"),
    (with_metadata("half \ud83d"), "'key' has a lone surrogate at character 5, U\\+D83D"),
    (with_metadata({"a\udce9": 1}), "lone surrogate at character 1, U\\+DCE9.*byte 0xE9"),
    (Document("bad", "text", text="a", metadata={"\ud800": 1}), "metadata key .* has a lone surrogate"),
    (Document("bad", "text", text="a", metadata={"source": 1}), "reserved for the document's own fields"),
    (Document("bad", "text", text="a", metadata={"": 1}), "empty or not strings"),
    (Document("bad", "text", text="a", metadata={1: 1}), "empty or not strings"),  # type: ignore[dict-item]
    (Document("bad", "text", text="a", metadata=None), "its metadata are of type NoneType"),  # type: ignore[arg-type]
    (Document("bad", "text", text="a", metadata=FailingMapping()), "OSError: the database is closed"),
    (Document("bad", "text", text=None), "its text is of type NoneType; it must be a str"),  # type: ignore[arg-type]
    (Document("bad", "text", text="a \ud83d"), "its text has a lone surrogate at character 2, U\\+D83D.*half of"),
    (Document("bad", "text", text="a", locator=5), "its locator is of type int"),  # type: ignore[arg-type]
    (Document(["bad"], "text", text="a"), "its source is of type list"),  # type: ignore[arg-type]
    (Document("bad", "picture", image=Path("a")), "its image is of type pathlib"),  # type: ignore[arg-type]
    (Document("bad", "text", text="a", fused={1}), "its fused is of type set"),  # type: ignore[arg-type]
    (FailingDocument("bad", "text", text="a"), "ZeroDivisionError: no input"),
    ({"text": "a", "source": "bad"}, "it is of type dict; a stream has objects of type Document"),
    (None, "it is of type NoneType"),
    ("text", "it is of type str"),
    (NoName(), "NoName; a stream has"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD, ids=range(len(BAD)))
def test_document_that_cannot_be_stored_is_the_only_failure(bad: Any, reason: str, memory_store: Store) -> None:
    good = passages(5)
    report = ingest([*good[:2], bad, *good[2:]], FakeEmbedder(), memory_store)
    assert (report.added, memory_store.count()) == (5, 5)
    (failure,) = report.failed
    name, message = failure
    assert "bad" in name or "object of type" in name
    assert re.search(reason, message, re.DOTALL), message
    for document in good:
        (hit,) = memory_store.search(query_vector(document), 1)
        assert (hit.document, round(hit.score, 5)) == (document, 1.0)


def test_all_bad_documents_in_one_stream(backend: OpenStore) -> None:
    store, good = backend(), passages(40)
    stream: list[Any] = []
    for document, (bad, _) in zip(good, BAD, strict=False):
        stream += [document, bad]
    report = ingest([*stream, *good[len(BAD) :]], FakeEmbedder(), store)
    assert (report.added, len(report.failed), store.count()) == (40, len(BAD), 40)


def test_values_at_the_limits_are_stored_as_they_are(backend: OpenStore) -> None:
    """The deepest metadata and the largest integers that are accepted can be written by every client."""
    store = backend()
    metadata = {"deep": nested(63, lambda value: {"a": value}), "large": 2**63 - 1, "small": -(2**63), "text": "a\0b\n"}
    document = Document("edge", "text", text="edge \U0001f600", metadata=metadata)
    report = ingest([document], FakeEmbedder(), store)
    assert (report.added, report.failed) == (1, [])
    (hit,) = store.search(query_vector(document), 1)
    assert hit.document == document


@pytest.mark.parametrize("error", [RecursionError("too deep"), OverflowError("int too large"), KeyError("x")])
def test_point_that_a_client_cannot_write_is_the_only_failure(
    error: Exception, memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    class FailingStore(Store):
        def upsert(self, points: Sequence[Point]) -> None:
            if any(point.document.metadata["number"] == 33 for point in points):
                raise error
            super().upsert(points)

    with caplog.at_level(logging.WARNING):
        report = ingest(passages(60), FakeEmbedder(), FailingStore(memory_store.core))
    assert report.added == memory_store.count() == 59
    ((name, reason),) = report.failed
    assert name == "notes/11.md#lines=33,33"
    assert f"it was not written: {type(error).__name__}: " in reason
    assert any(record.exc_info for record in caplog.records)


def test_names_in_a_report_are_valid_unicode(memory_store: Store) -> None:
    report = ingest(
        [LoadFailure("caf\udce9", "x"), Document("a\ud800", "text", text="a")], FakeEmbedder(), memory_store
    )
    assert [name for name, _ in report.failed] == ["caf\\udce9", "a\\ud800"]


def test_sync_keeps_points_of_documents_that_cannot_be_stored(memory_store: Store) -> None:
    good = passages(12)
    ingest(good, FakeEmbedder(), memory_store)
    bad = replace(good[0], text=None)  # type: ignore[arg-type]
    report = ingest([bad, *good[6:]], FakeEmbedder(), memory_store, sync=True)
    # The first source failed, and the second one is not in the stream.
    assert (report.deleted, len(report.failed)) == (3, 1)
    assert {point.source for point in memory_store.scan()} == {"notes/0.md", "notes/2.md", "notes/3.md"}


@pytest.mark.parametrize("sync", [True, "sources", lambda _: True])
def test_sync_deletes_nothing_if_the_source_of_a_failure_is_unknown(
    sync: Any, memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    good = passages(12)
    ingest(good, FakeEmbedder(), memory_store)
    stream: list[Any] = [{"source": "notes/0.md"}, good[3]]
    report = ingest(stream, FakeEmbedder(), memory_store, sync=sync)
    assert (report.deleted, report.replaced, memory_store.count()) == (0, 0, 12)
    assert "nothing is deleted" in caplog.text
    assert report.not_deleted == "an item of unknown source failed"


def test_thumbnail_that_cannot_be_made_loses_no_point(memory_store: Store, media: dict[str, Path]) -> None:
    class StrangePolicy(FakeEmbedder):
        policy = "no policy"

    document = Document("photo", "picture", image=str(media["photo"]))
    report = ingest([document], StrangePolicy(), memory_store, thumbnails=8000)
    assert (report.added, report.failed) == (1, [])
    assert memory_store.point_id(document, fake_recipe()) in {point.id for point in memory_store.scan()}
