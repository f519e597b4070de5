"""The fixture behind every test of the contract that all stores keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.store_backends import OpenStore

BACKENDS = (
    *("qdrant-memory", "qdrant-folder", "qdrant-edge", "qdrant-edge-client", "qdrant-server"),
    *("chroma-memory", "chroma-folder", "chroma-server"),
)
"""What `store_backends.open_backend` opens."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path, chroma_port: int) -> Iterator[OpenStore]:
    """Opens stores of one collection, of each backend in turn."""
    from tests.support.store_backends import open_backend

    with open_backend(request.param, tmp_path, lambda: chroma_port) as open_store:
        yield open_store
