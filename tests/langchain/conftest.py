"""Embeddings, documents and vector stores over the sample library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLLoader

from qwen3vl import MediaPolicy
from tests.support.langchain_stores import close_vector_store, open_vector_store


@pytest.fixture(scope="package")
def policy(library_folder: Path) -> MediaPolicy:
    return MediaPolicy(folders=(library_folder,))


@pytest.fixture(scope="package")
def embeddings(policy: MediaPolicy) -> Qwen3VLEmbeddings:
    return Qwen3VLEmbeddings(model="tiny", device="cpu", policy=policy)


@pytest.fixture(scope="package")
def library(library_folder: Path) -> list[Document]:
    """The readable documents of the sample library."""
    return [
        document
        for document in Qwen3VLLoader(library_folder).lazy_load()
        if "corrupt" not in document.metadata["source"]
    ]


@pytest.fixture(params=["qdrant", "chroma", "memory"])
def store(request: pytest.FixtureRequest, embeddings: Qwen3VLEmbeddings, tmp_path: Path) -> Iterator[VectorStore]:
    store = open_vector_store(request.param, embeddings, tmp_path)
    yield store
    close_vector_store(store)
