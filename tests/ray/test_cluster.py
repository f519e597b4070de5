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
from tests.support import qdrant_rest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray has clusters on one machine on Linux only")
ROOT = Path(__file__).parent.parent.parent


def run_program(module: str, *arguments: str) -> Any:
    """Run a program, whose Ray is not that of the other tests; return the line of JSON that it prints among Ray's."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))


def test_three_nodes_leave_what_one_process_leaves_although_one_is_killed(
    library_folder: Path, tiny_embedder: Embedder, tmp_path: Path
) -> None:
    alone = open_store(str(tmp_path / "alone"))
    texts = [Document(str(number), "text", text=f"{number} red stars") for number in range(400)]
    stream = chain(Loader(segment_seconds=1).load(library_folder), texts)
    expected = qwen3vl.ingest(stream, tiny_embedder, alone)
    manifest = tmp_path / "texts.jsonl"
    manifest.write_text("".join(f"{json.dumps({'source': text.source, 'text': text.text})}\n" for text in texts))
    with qdrant_rest.serve() as port:
        location = f"http://127.0.0.1:{port}"
        outcome = run_program("tests.ray.three_nodes", location, str(library_folder), str(manifest))
        found = contents(open_store(location))
    assert_equal(found, contents(alone))
    assert outcome["nodes"] == 2, "no node was killed"
    assert outcome["stored_when_killed"] < expected.added, "the run was over before a node was killed"
    assert outcome["report"]["added"] + outcome["report"]["unchanged"] == expected.added
    assert [tuple(failure) for failure in outcome["report"]["failed"]] == expected.failed
