"""The standard test suites of langchain-tests, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import pytest
from langchain_chroma import Chroma
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_qdrant import QdrantVectorStore
from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLRetriever, Qwen3VLVectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests
from qdrant_client import QdrantClient, models
from qwen3vl_chroma import ChromaStore
from qwen3vl_qdrant import edge_client

from qwen3vl import Retriever, ingest
from tests.support.fake_embedder import passages

EMBEDDINGS = Qwen3VLEmbeddings(model="tiny")


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3VLEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "tiny"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        env = {"QWEN3VL_EMBEDDING_MODEL": "tiny", "QWEN3VL_DEVICE": "cpu"}
        return env, {}, {"model": "tiny", "device": "cpu"}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3VLEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "tiny"}


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _fill_store(self, tmp_path: Path) -> None:
        self.store = ChromaStore(chromadb.PersistentClient(str(tmp_path)))
        ingest(passages(20), EMBEDDINGS.embedder, self.store)

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return Qwen3VLRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": Retriever(EMBEDDINGS.embedder, self.store)}

    @property
    def retriever_query_example(self) -> str:
        return "passage 3"


FAILURES_OF_QDRANT = (
    *("add_documents", "deleting_documents", "deleting_bulk_documents", "add_documents_with_ids_is_idempotent"),
    *("add_documents_by_id_with_mutation", "get_by_ids", "add_documents_documents", "add_documents_with_existing_ids"),
)
"""Tests that QdrantVectorStore fails with any embeddings.

It accepts only UUIDs as ids, wants ids for all documents or for none, and returns documents without ids. The control
runs the tests with LangChain's own embeddings."""


FAILURES_OF_SERVERS = ("delete_missing_content", "get_by_ids_missing")
"""Tests that fail also because Edge, like a server and unlike local mode, refuses ids that no point can have."""


def expect_failures_of_qdrant(request: pytest.FixtureRequest, *others: str) -> None:
    if request.function.__name__.removeprefix("test_").removesuffix("_async") in FAILURES_OF_QDRANT + others:
        request.applymarker(pytest.mark.xfail(strict=True, reason="QdrantVectorStore fails it with any embeddings"))


def create_qdrant_store(client: QdrantClient, embeddings: Embeddings) -> QdrantVectorStore:
    size = len(embeddings.embed_query("size"))
    client.create_collection("standard", models.VectorParams(size=size, distance=models.Distance.COSINE))
    return QdrantVectorStore(client, "standard", embeddings)


class TestQdrant(VectorStoreIntegrationTests):
    @pytest.fixture(params=[EMBEDDINGS, DeterministicFakeEmbedding(size=6)], ids=["qwen3vl", "control"])
    def vectorstore(self, request: pytest.FixtureRequest) -> Iterator[VectorStore]:
        expect_failures_of_qdrant(request)
        client = QdrantClient(":memory:")
        yield create_qdrant_store(client, request.param)
        client.close()


class TestQdrantEdge(VectorStoreIntegrationTests):
    """The store over a folder. It fails what it fails over any client."""

    @pytest.fixture
    def vectorstore(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
        expect_failures_of_qdrant(request, *FAILURES_OF_SERVERS)
        with edge_client(tmp_path / "library") as client:
            yield create_qdrant_store(client, EMBEDDINGS)


class TestChroma(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> VectorStore:
        return Chroma("standard", EMBEDDINGS, persist_directory=str(tmp_path))


class MediaChroma(Qwen3VLVectorStore, Chroma):  # type: ignore[misc]
    pass


class MediaMemory(Qwen3VLVectorStore, InMemoryVectorStore):
    pass


class TestMediaChroma(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> VectorStore:
        return MediaChroma("standard", EMBEDDINGS, persist_directory=str(tmp_path))


class TestMediaInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return MediaMemory(EMBEDDINGS)


class TestInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return InMemoryVectorStore(EMBEDDINGS)
