"""The models of the tests as mteb takes them, and a folder for its results."""

from __future__ import annotations

import os
import tempfile

import pytest

from qwen3vl import Embedder, Reranker

_CACHE = tempfile.TemporaryDirectory(prefix="qwen3vl-mteb-cache-")
# Importing mteb makes this folder, which is in the user's home otherwise.
os.environ["MTEB_CACHE"] = _CACHE.name

from qwen3vl_mteb import Qwen3VLCrossEncoder, Qwen3VLEncoder


@pytest.fixture(scope="session")
def encoder(tiny_embedder: Embedder) -> Qwen3VLEncoder:
    return Qwen3VLEncoder(tiny_embedder)


@pytest.fixture(scope="session")
def cross_encoder(tiny_reranker: Reranker) -> Qwen3VLCrossEncoder:
    return Qwen3VLCrossEncoder(tiny_reranker)
