"""The models of the tests, as mteb's; mteb keeps its results in a folder of the tests."""

from __future__ import annotations

import os
import tempfile

import pytest

from qwen3vl import Embedder, Reranker

# Importing mteb makes a folder for results, and logs in by its settings: not those of the user.
os.environ["MTEB_CACHE"] = tempfile.mkdtemp(prefix="qwen3vl-mteb-cache-")

from qwen3vl_mteb import Qwen3VLCrossEncoder, Qwen3VLEncoder


@pytest.fixture(scope="session")
def encoder(tiny_embedder: Embedder) -> Qwen3VLEncoder:
    return Qwen3VLEncoder(tiny_embedder)


@pytest.fixture(scope="session")
def cross_encoder(tiny_reranker: Reranker) -> Qwen3VLCrossEncoder:
    return Qwen3VLCrossEncoder(tiny_reranker)
