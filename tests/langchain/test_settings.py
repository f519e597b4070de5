"""Objects of equal settings are equal, and both names of the model are accepted, by type checkers too."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from langchain_core.documents import BaseDocumentCompressor
from langchain_core.stores import InMemoryStore
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

from qwen3vl import Embedder, MediaPolicy, Retriever, ingest
from tests.support.fake_embedder import passages
from tests.support.store_fixtures import *  # noqa: F403
