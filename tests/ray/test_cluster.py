"""A cluster of three nodes leaves in a store what one process leaves there, although one of the nodes is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import qwen3vl
from qwen3vl import Document, Embedder, Loader, open_store
from tests.ray.test_ingest import assert_equal, contents
from tests.ray.three_nodes import COLLECTION
from tests.support import qdrant_rest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray has clusters on one machine on Linux only")
ROOT = Path(__file__).parent.parent.parent


def start_program(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program, whose Ray is not that of the other tests."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish_program(program: subprocess.Popen[str]) -> Any:
    """Wait until a program ends; return the line of JSON that it prints among Ray's."""
    output, errors = program.communicate()
    assert program.returncode == 0, errors[-4000:]
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))


def run_program(module: str, *arguments: str) -> Any:
    """Run a program, whose Ray is not that of the other tests; return what it prints as JSON."""
    return finish_program(start_program(module, *arguments))


def test_three_nodes_leave_what_one_process_leaves_although_one_is_killed(
    library_folder: Path, tiny_embedder: Embedder, chroma_port: int, tmp_path: Path
) -> None:
    alone = open_store(str(tmp_path / "alone"))
    texts = [Document(str(number), "text", text=f"{number} red stars") for number in range(240)]
    stream = chain(Loader(segment_seconds=1).load(library_folder), texts)
    expected = qwen3vl.ingest(stream, tiny_embedder, alone)
    manifest = tmp_path / "texts.jsonl"
    manifest.write_text("".join(f"{json.dumps({'source': text.source, 'text': text.text})}\n" for text in texts))
    with qdrant_rest.serve() as qdrant_port:
        locations = [f"qdrant:http://127.0.0.1:{qdrant_port}", f"chroma:http://127.0.0.1:{chroma_port}"]
        answer = run_program("tests.ray.three_nodes", ",".join(locations), str(library_folder), str(manifest))
        assert len(answer["outcomes"]) == 2
        for location, outcome in zip(locations, answer["outcomes"], strict=True):
            assert_equal(contents(open_store(location, COLLECTION)), contents(alone))
            assert outcome["nodes"] == 2, "no node was killed"
            assert outcome["stored_when_killed"] < expected.added, "the run was over before a node was killed"
            assert outcome["report"]["added"] + outcome["report"]["unchanged"] == expected.added
            assert [tuple(failure) for failure in outcome["report"]["failed"]] == expected.failed
