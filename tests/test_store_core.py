"""`StoreCore` and `Retry`, over a fake database: retries, races, request sizes, and the registry of integrations."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import AsyncStore, Document, Point, Recipe, RecipeError, Store, StoreError, ingest, open_store
from qwen3vl.stores import ClientFailure, Retry, matches_nothing, parse_location
from qwen3vl.stores.core import RECIPE_KEY
from qwen3vl.stores.failures import http_failure
from tests.support.fake_core import FakeAsyncClient, FakeClient, FakeCore
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, fake_vector, passages

QUICK_RETRY = Retry(attempts=3, initial_delay_s=0.001, max_delay_s=0.002)
BUSY = ClientFailure("the server is busy", transient=True)


@pytest.mark.parametrize("client_class", [FakeClient, FakeAsyncClient])
def test_transient_failures_are_retried_until_the_last_attempt(client_class: type[FakeClient]) -> None:
    def count(client: FakeClient) -> int:
        core = FakeCore(client, QUICK_RETRY)
        return asyncio.run(AsyncStore(core).acount()) if core.is_async else Store(core).count()

    client = client_class([BUSY, BUSY])
    assert (count(client), client.num_calls) == (0, 3)
    client = client_class([BUSY, BUSY, BUSY])
    with pytest.raises(
        StoreError, match=r"fake collection 'points': the server is busy \(after 3 attempts\)"
    ) as caught:
        count(client)
    assert (caught.value.transient, client.num_calls) == (True, 3)


def test_permanent_failures_are_not_retried() -> None:
    client = FakeClient([ClientFailure("it is malformed", invalid_request=True)])
    with pytest.raises(StoreError, match=r"it is malformed$") as caught:
        Store(FakeCore(client, QUICK_RETRY)).count()
    assert (caught.value.transient, caught.value.invalid_request, client.num_calls) == (False, True, 1)


def test_empty_name_of_a_collection_is_an_error() -> None:
    with pytest.raises(ValueError, match="the collection's name is empty: pass a name"):
        FakeCore(collection="")


def test_delays_grow_with_jitter_and_respect_retry_after() -> None:
    retry = Retry(attempts=9, initial_delay_s=0.5, max_delay_s=4)
    for failures, bound in enumerate((0.5, 1, 2, 4, 4)):
        delays = [retry.delay_s(failures) for _ in range(100)]
        assert bound / 2 <= min(delays) < max(delays) <= bound
    assert retry.delay_s(0, retry_after_s=7) == 7
    assert retry.delay_s(0, retry_after_s=100) == 12
    with pytest.raises(ValueError, match="at least 1"):
        Retry(attempts=0)


def test_former_names_of_retry_are_deprecated() -> None:
    former: dict[str, Any] = {"first": 0.1, "longest": 9}
    with pytest.deprecated_call():
        retry = Retry(**former)
    assert retry == Retry(initial_delay_s=0.1, max_delay_s=9)
    with pytest.deprecated_call():
        assert (retry.first, retry.longest) == (0.1, 9)


@pytest.mark.parametrize("recipe", [fake_recipe(), fake_recipe(dimensions=64)])
def test_collection_that_another_process_creates_at_the_same_time_is_checked(recipe: Recipe) -> None:
    class RacingCore(FakeCore):
        async def create_collection(self, recipe: Recipe) -> None:
            self.stored_metadata = {RECIPE_KEY: fake_recipe().to_dict()}
            raise StoreError("it exists already")

    store = Store(RacingCore())
    if recipe == fake_recipe():
        store.create(recipe)
    else:
        with pytest.raises(RecipeError, match="dimensions"):
            store.create(recipe)


def test_collection_that_cannot_be_created_is_an_error() -> None:
    class FailingCore(FakeCore):
        async def create_collection(self, recipe: Recipe) -> None:
            raise StoreError("it may not be created")

    with pytest.raises(StoreError, match="it may not be created"):
        Store(FailingCore()).create(fake_recipe())


def test_write_requests_are_limited_in_points_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    core = FakeCore()
    points = [
        Point(f"{number}", fake_vector(number), Document(f"{number}", "text", text="x" * 1000)) for number in range(10)
    ]
    core.max_request_points = 4
    Store(core).upsert(points)
    assert core.requests == [4, 4, 2]
    core.requests.clear()
    monkeypatch.setattr("qwen3vl.stores.core.MAX_REQUEST_BYTES", 6000)
    Store(core).upsert(points)
    assert core.requests == [3, 3, 3, 1]
    core.requests.clear()
    monkeypatch.setattr("qwen3vl.stores.core.MAX_REQUEST_BYTES", 10)
    Store(core).upsert(points)
    assert core.requests == [1] * 10


def test_ingest_writes_into_any_core() -> None:
    store = Store(FakeCore())
    documents = passages(20)
    assert ingest(documents, FakeEmbedder(), store).added == 20
    (hit,) = store.search(fake_vector(documents[7].input), 1)
    assert hit.document == documents[7]
    assert ingest(documents[:5], FakeEmbedder(), store, sync=True).deleted == 15
    assert store.vectors([hit.id, hit.id]) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_failures(value: float) -> None:
    class BadEmbedder(FakeEmbedder):
        def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
            for index, vector in super().stream(inputs):
                if index == 3:
                    vector[5] = value
                yield index, vector

    store = Store(FakeCore())
    documents = passages(6)
    report = ingest(documents, BadEmbedder(), store)
    assert (report.added, store.count()) == (5, 5)
    assert report.failed == [(documents[3].name, "the embedder returned a vector with NaN or infinity")]
    query = fake_vector("q")
    query[0] = value
    with pytest.raises(ValueError, match="the vector of a search has NaN or infinity"):
        store.search(query, 3)
    assert ingest(documents, FakeEmbedder(), store).added == 1


def test_full_disk_is_not_transient() -> None:
    assert http_failure("Chroma", 500, "trouble", credentials_fix="").transient
    assert not http_failure("Chroma", 500, "disk is full", credentials_fix="").transient
    assert not http_failure("Chroma", 507, "trouble", credentials_fix="").transient


def test_filter_with_an_empty_list_matches_nothing() -> None:
    assert matches_nothing({"kind": "page", "source": []})
    assert not any(map(matches_nothing, ({}, None, {"source": ["a"]}, "source")))


def test_locations_name_integration_and_address() -> None:
    assert parse_location("chroma:library") == ("chroma", "library")
    assert parse_location("qdrant:http://host:6333") == ("qdrant", "http://host:6333")
    for location in (
        "library",
        ":memory:",
        "http://host:6333",
        "c:folder",
        "C:\\folder",
        "./2024:05",
        "a b:c",
        "a/b:c",
    ):
        assert parse_location(location) == ("", location)


@pytest.mark.parametrize(
    "location", ["weaviate:library", "htp://host:6333", "grpc://host", "HTTP://host", "http:/host"]
)
def test_location_with_an_unknown_prefix_is_an_error_that_names_the_known_ones(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=rf"{location} begins with .* chroma, qdrant\. .* http:// .* \./{location}"):
        open_store(location)
    with pytest.raises(StoreError, match=r"begins with http:// or https://"):
        open_store("chroma:htp://host")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / location).mkdir(parents=True)
    assert parse_location(location) == ("", location)


@pytest.mark.parametrize("location", ["", "chroma:", "qdrant:"])
def test_location_without_an_address_is_an_error(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="has no address: add a folder"):
        open_store(location)
    assert list(tmp_path.iterdir()) == []


def test_integrations_of_others_are_named_before_a_colon(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_fake(address: str, collection: str) -> Store:
        opened.append(address)
        return Store(FakeCore())

    monkeypatch.setattr(sys.modules[__name__], "open_fake", open_fake, raising=False)
    entry = EntryPoint("fake-db", f"{__name__}:open_fake", "qwen3vl.stores")
    monkeypatch.setattr("qwen3vl.stores.registry.entry_points", lambda **_: (entry,))
    assert isinstance(open_store("fake-db:folder"), Store)
    assert opened == ["folder"]
    with pytest.raises(StoreError, match="there are chroma, fake-db, qdrant"):
        open_store("other:folder")


def test_missing_integration_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("qwen3vl.stores.registry.entry_points", lambda **_: ())
    for location, integration in ((str(tmp_path), "qdrant"), ("chroma:x", "chroma")):
        with pytest.raises(StoreError, match=rf"run: pip install \. \./integrations/{integration}"):
            open_store(location)
