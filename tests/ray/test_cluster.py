"""A cluster of three nodes leaves in a store what one process leaves there, although one of the nodes is killed.

What is left of it is used through Ray Client then: `qwen3vl index --ray ray://…` moves its work to the cluster, and
what cannot run from a client is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import qwen3vl
from qwen3vl import Document, Embedder, Loader, open_store
from tests.ray.programs import run_program
from tests.ray.test_ingest import assert_equal, contents
from tests.ray.three_nodes import COLLECTION
from tests.support import qdrant_rest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray has clusters on one machine on Linux only")
TEXTS = [Document(str(number), "text", text=f"{number} red stars") for number in range(240)]


def write_manifest(path: Path, texts: list[Document]) -> str:
    path.write_text("".join(f"{json.dumps({'source': text.source, 'text': text.text})}\n" for text in texts))
    return str(path)


@pytest.fixture(scope="module")
def qdrant() -> Iterator[str]:
    with qdrant_rest.serve() as port:
        yield f"qdrant:http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def chroma(chroma_port: int) -> str:
    return f"chroma:http://127.0.0.1:{chroma_port}"


@pytest.fixture(scope="module")
def answers(qdrant: str, chroma: str, library_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the cluster has done."""
    folder = tmp_path_factory.mktemp("manifests")
    arguments = {
        "locations": [qdrant, chroma],
        "paths": [str(library_folder), write_manifest(folder / "texts.jsonl", TEXTS)],
        "client_location": qdrant,
        "client_paths": [write_manifest(folder / "two.jsonl", TEXTS[:2])],
    }
    return run_program("tests.ray.three_nodes", json.dumps(arguments))


def test_three_nodes_leave_what_one_process_leaves_although_one_is_killed(
    answers: Any, qdrant: str, chroma: str, library_folder: Path, tiny_embedder: Embedder, tmp_path: Path
) -> None:
    alone = open_store(str(tmp_path / "alone"))
    expected = qwen3vl.ingest(chain(Loader(segment_seconds=1).load(library_folder), TEXTS), tiny_embedder, alone)
    for location, outcome in zip((qdrant, chroma), answers["outcomes"], strict=True):
        assert_equal(contents(open_store(location, COLLECTION)), contents(alone))
        assert outcome["nodes"] == 2, "no node was killed"
        assert outcome["stored_when_killed"] < expected.added, "the run was over before a node was killed"
        assert outcome["report"]["added"] + outcome["report"]["unchanged"] == expected.added
        assert [tuple(failure) for failure in outcome["report"]["failed"]] == expected.failed


def test_a_client_of_ray(answers: Any, qdrant: str) -> None:
    client = answers["client"]
    assert open_store(qdrant).count() == 2
    assert (client["report"]["added"], client["report"]["failed"]) == (2, [])
    assert "fps is 1.0 there and 2.0 here" in client["recipe"]
    assert "qwen3vl index --ray ray://HOST:PORT" in client["read"]
