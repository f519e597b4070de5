"""`ray://` addresses: `qwen3vl index` moves its work to the cluster; what cannot run from here is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qwen3vl import open_store
from tests.ray.test_cluster import run_program
from tests.support import qdrant_rest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray has clusters on one machine on Linux only")


def test_a_client_of_ray(tmp_path: Path) -> None:
    manifest = tmp_path / "texts.jsonl"
    manifest.write_text('{"source": "a", "text": "a red star"}\n{"source": "b", "text": "a blue ring"}\n')
    with qdrant_rest.serve() as port:
        location = f"http://127.0.0.1:{port}"
        answers = run_program("tests.ray.ray_client", location, str(manifest))
        assert open_store(location).count() == 2
    assert (answers["report"]["added"], answers["report"]["failed"]) == (2, [])
    assert "fps is 1.0 there and 2.0 here" in answers["recipe"]
    assert "qwen3vl index --ray ray://HOST:PORT" in answers["read"]
