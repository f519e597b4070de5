"""The fixture behind every test of the contract that all stores keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import store_backends
from tests.support.store_backends import OpenStore


@pytest.fixture(params=store_backends.BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path, chroma_port: int) -> Iterator[OpenStore]:
    """Opens stores of one collection, of each backend in turn."""
    with store_backends.open_backend(request.param, tmp_path, lambda: chroma_port) as open_store:
        yield open_store
