"""Objects of equal settings are equal, and both names of the model are accepted.

mypy checks this file too: an argument that it does not accept here is an error of `make types`.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_vl import (
    MediaKeys,
    Qwen3VLEmbeddings,
    Qwen3VLEmbeddingsFilter,
    Qwen3VLReranker,
    Qwen3VLRetriever,
)
from langchain_qwen3_vl.embeddings import EmbeddingsArguments
from langchain_qwen3_vl.reranker import RerankerArguments
from pydantic import BaseModel

from qwen3vl import MediaPolicy, Retriever, ingest, open_store
from qwen3vl.stores import Store
from tests.support.fake_embedder import passages


def embeddings_with(folder: Path) -> Qwen3VLEmbeddings:
    return Qwen3VLEmbeddings(
        model_name="tiny",
        dimensions=32,
        query_instruction="Find it.",
        policy=MediaPolicy(folders=[folder, "photos"], hosts=["example.org"]),
        media_keys=MediaKeys(image=["photo"], video="clip"),
        model_kwargs={"max_length": 512},
    )


def reranker_with(folder: Path) -> Qwen3VLReranker:
    return Qwen3VLReranker(
        model_name="tiny", top_n=None, policy=MediaPolicy(folders=folder), media_keys=MediaKeys(image=["photo"])
    )


def filter_with(folder: Path) -> Qwen3VLEmbeddingsFilter:
    return Qwen3VLEmbeddingsFilter(embeddings=embeddings_with(folder), k=3)


def use(adapter: BaseModel) -> None:
    """Load the model, and let everything that can be cached or logged once be cached and logged."""
    documents = [Document("a star", metadata={"photo": "nowhere.png"}), Document("a text")]
    if isinstance(adapter, Qwen3VLEmbeddings):
        adapter.embed_documents(["dummy_text"])
        InMemoryVectorStore(adapter).add_documents(documents)
        adapter.embed_query("a")
    elif isinstance(adapter, (Qwen3VLReranker, Qwen3VLEmbeddingsFilter)):
        adapter.compress_documents(documents, "a")


@pytest.mark.engine
@pytest.mark.parametrize("make", [embeddings_with, reranker_with, filter_with])
def test_equal_settings_are_equal_before_and_after_use(make: Callable[[Path], BaseModel], tmp_path: Path) -> None:
    adapter = make(tmp_path)
    for _ in ("unused", "used"):
        assert adapter == make(tmp_path)
        assert pickle.loads(pickle.dumps(adapter)) == adapter
        assert copy.deepcopy(adapter) == adapter
        assert copy.copy(adapter) == adapter
        assert type(adapter)(**adapter.model_dump()) == adapter
        assert type(adapter).model_validate_json(adapter.model_dump_json()) == adapter
        use(adapter)
    assert adapter != make(tmp_path / "other")


def test_model_has_two_names(tmp_path: Path) -> None:
    assert Qwen3VLEmbeddings(model="tiny") == Qwen3VLEmbeddings(model_name="tiny")
    assert Qwen3VLReranker(model="tiny") == Qwen3VLReranker(model_name="tiny")
    assert embeddings_with(tmp_path).model == reranker_with(tmp_path).model == "tiny"


@pytest.mark.parametrize(
    ("adapter", "arguments"), [(Qwen3VLEmbeddings, EmbeddingsArguments), (Qwen3VLReranker, RerankerArguments)]
)
def test_type_checkers_know_every_field(adapter: type[BaseModel], arguments: Any) -> None:
    assert set(arguments.__annotations__) == {*adapter.model_fields, "model_name"}


@pytest.mark.parametrize("adapter", [Qwen3VLEmbeddings, Qwen3VLReranker, Qwen3VLEmbeddingsFilter, Qwen3VLRetriever])
def test_json_schema_describes_every_field(adapter: type[BaseModel]) -> None:
    properties = adapter.model_json_schema()["properties"]
    assert len(properties) >= len(adapter.model_fields)
    fields = set(properties) - {"name", "tags", "metadata"}  # fields of LangChain's retrievers
    assert [name for name in fields if not properties[name].get("description")] == []


def test_sequences_of_any_type_are_kept_as_tuples() -> None:
    policy = MediaPolicy(folders=[Path("photos"), "slides"], hosts=["example.org"])
    assert (policy.folders, policy.hosts) == (("photos", "slides"), ("example.org",))
    assert policy == MediaPolicy(folders=("photos", Path("slides")), hosts=("example.org",))
    assert hash(policy) == hash(MediaPolicy(folders=["photos", "slides"], hosts="example.org"))
    assert MediaPolicy(folders=Path("photos")).folders == MediaPolicy(folders="photos").folders == ("photos",)
    assert MediaPolicy().allowed_folders is None
    keys = MediaKeys(image=["photo", "image"], video="clip")
    assert (keys.image, keys.video) == (("photo", "image"), ("clip",))
    assert hash(keys) == hash(MediaKeys(image=("photo", "image"), video=["clip"]))


@pytest.fixture
def core_store() -> Iterator[Store]:
    store = open_store(":memory:")
    yield store
    store.close()


def test_retriever_says_why_it_cannot_be_pickled(core_store: Store) -> None:
    embedder = Qwen3VLEmbeddings(model="tiny").embedder
    ingest(passages(3), embedder, core_store)
    retriever = Qwen3VLRetriever(retriever=Retriever(embedder, core_store), k=2)
    with pytest.raises(TypeError, match="holds an open store and loaded models"):
        pickle.dumps(retriever)
    for copied in (copy.copy(retriever), copy.deepcopy(retriever), retriever.model_copy()):
        assert copied == retriever
        assert copied.retriever is retriever.retriever
        assert copied.invoke("passage 1") == retriever.invoke("passage 1")
