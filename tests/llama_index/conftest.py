"""A policy for the sample library's folder, an embedding model with it, and the library's nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.schema import BaseNode
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.readers.qwen3_vl import Qwen3VLReader

from qwen3vl import MediaPolicy


@pytest.fixture(scope="session")
def policy(library_folder: Path) -> MediaPolicy:
    return MediaPolicy(folders=(library_folder,))


@pytest.fixture(scope="module")
def embed_model(policy: MediaPolicy) -> Qwen3VLEmbedding:
    return Qwen3VLEmbedding(model_name="tiny", device="cpu", policy=policy)


@pytest.fixture
def nodes(library_folder: Path) -> list[BaseNode]:
    """All nodes of the sample library that can be embedded, as the reader returns them."""
    return [node for node in Qwen3VLReader().lazy_load_data(library_folder) if "corrupt" not in node.metadata["source"]]
