"""The models of the tests as mteb takes them, and a folder for its results."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from qwen3vl import Embedder, Reranker

if TYPE_CHECKING:  # they import mteb
    from qwen3vl_mteb import Qwen3VLCrossEncoder, Qwen3VLEncoder

_CACHE = tempfile.TemporaryDirectory(prefix="qwen3vl-mteb-cache-")
# Importing mteb makes this folder, which is in the user's home otherwise.
os.environ["MTEB_CACHE"] = _CACHE.name


@pytest.fixture(scope="session")
def encoder(tiny_embedder: Embedder) -> Qwen3VLEncoder:
    from qwen3vl_mteb import Qwen3VLEncoder

    return Qwen3VLEncoder(tiny_embedder)


@pytest.fixture(scope="session")
def cross_encoder(tiny_reranker: Reranker) -> Qwen3VLCrossEncoder:
    from qwen3vl_mteb import Qwen3VLCrossEncoder

    return Qwen3VLCrossEncoder(tiny_reranker)
