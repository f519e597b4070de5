"""Hostile files cost an error each, and nothing else: no time and no vector of others, and no memory of the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen3vl import Embedder
from qwen3vl.documents import Document, LoadFailure
from qwen3vl.loaders import Loader
from qwen3vl.media.isolation.pool import POOL
from qwen3vl.media.policy import UNTRUSTED_POLICY, MediaPolicy
from tests.support.hostile.corpus import CORPUS
from tests.support.hostile.file import MIB
from tests.support.hostile.fuzzing import Fuzzer, write_neighbours
from tests.support.hostile.mutation import mutated
from tests.support.hostile.process import children
from tests.support.hostile.special import SPECIAL, growing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured on Linux only")

SECONDS = 5.0
MEMORY = 1024 * MIB
MAX_GROWTH = 512 * MIB
"""By how much this process may grow while it reads the corpus."""
MAX_DECODER = MEMORY + 256 * MIB
"""Maximum memory of a decoder process: what an item may take, and the process with its libraries."""
TIMEOUT = 600.0
"""Seconds after which a process or thread counts as hanging, on the slowest machine."""
NUM_FUZZED = 192
OUTCOMES = {
    *("embedder: vector", "embedder: MediaError", "embedder: PolicyError"),
    *("loader: Document", "loader: LoadFailure"),
}


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What becomes of the whole corpus in a process of its own, with valid inputs in the same batch."""
    command = [sys.executable, "-m", "tests.support.hostile.child", str(SECONDS), str(MEMORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]  # such as a neighbour whose vector changed
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_hostile_file_is_an_error_or_a_result(report: dict[str, Any], name: str) -> None:
    error, expected = report["errors"][name], CORPUS[name].expected
    assert report["expected_type"][name], error
    assert expected == "either" or expected == ("result" if error is None else "error"), error
    assert sum(report["loaded"][name].values()) < 5_000, "documents without number"


@pytest.mark.slow
def test_memory_of_the_process_is_bounded(report: dict[str, Any]) -> None:
    assert report["growth"] < MAX_GROWTH


@pytest.mark.slow
def test_memory_of_each_decoder_is_bounded(report: dict[str, Any]) -> None:
    assert 0 < report["decoder_peak"] < MAX_DECODER


def test_corpus_is_large_and_small_on_disk() -> None:
    assert len(CORPUS) >= 60
    sources = (Path(__file__).parent / "support" / "hostile").glob("*")
    assert {path.suffix for path in sources if path.is_file()} == {".py"}


@pytest.fixture
def policy(tmp_path: Path) -> MediaPolicy:
    return replace(UNTRUSTED_POLICY, folders=(tmp_path,), seconds=TIMEOUT)


@pytest.fixture
def stuck(tmp_path: Path, policy: MediaPolicy) -> Iterator[threading.Thread]:
    """A thread that embeds a page without end, until its decoder is killed."""
    file = CORPUS["pdf-nested-forms.pdf"]
    file.write(tmp_path)
    POOL.close()  # so that a new process begins
    others = set(children("qwen3vl.media.isolation"))
    embedder = Embedder("tiny", device="cpu", policy=policy)
    thread = threading.Thread(target=embedder.embed, args=([file.item(tmp_path)],), kwargs={"on_error": "collect"})
    thread.start()
    deadline = time.monotonic() + TIMEOUT
    while not set(children("qwen3vl.media.isolation")) - others:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield thread
    while thread.is_alive():
        for pid in set(children("qwen3vl.media.isolation")) - others:
            os.kill(pid, signal.SIGKILL)
        thread.join(0.1)


def test_page_in_another_thread_is_done_while_a_hostile_page_is_rendered(
    stuck: threading.Thread, tmp_path: Path, policy: MediaPolicy
) -> None:
    *_, page, _ = write_neighbours(tmp_path / "valid")
    assert len(Embedder("tiny", device="cpu", policy=policy).embed([page])) == 1
    assert stuck.is_alive()


def test_folder_is_loaded_while_a_hostile_page_is_rendered(
    stuck: threading.Thread, tmp_path: Path, policy: MediaPolicy
) -> None:
    write_neighbours(tmp_path / "valid")
    loaded = list(Loader(policy=policy).load(tmp_path / "valid"))
    assert [type(result) for result in loaded] == [Document] * 3
    assert stuck.is_alive()


@pytest.mark.parametrize("name", SPECIAL)
def test_path_that_is_no_file_is_an_error(tmp_path: Path, policy: MediaPolicy, name: str) -> None:
    path = tmp_path / name
    SPECIAL[name](path)
    kind = "video" if path.suffix == ".mp4" else "image"
    batch = Embedder("tiny", device="cpu", policy=policy).embed([{kind: str(path)}, "a text"], on_error="collect")
    assert [error.index for error in batch.errors] == [0]
    assert not any(isinstance(result, Document) for result in Loader(policy=policy).load(path))


def test_file_that_grows_costs_no_other_input_anything(tmp_path: Path, policy: MediaPolicy) -> None:
    path = tmp_path / "growing.png"
    embedder = Embedder("tiny", device="cpu", policy=policy)
    with growing(path):
        batch = embedder.embed([{"image": str(path)}, "a text"] * 8, on_error="collect")
        loaded = list(Loader(policy=policy).load(tmp_path))
    assert all("changed while it was read" in error.reason for error in batch.errors)
    assert all(error.index % 2 == 0 for error in batch.errors)
    assert all(isinstance(result, (Document, LoadFailure)) for result in loaded)


@pytest.mark.slow
def test_fuzzed_files_cost_no_other_input_anything(tmp_path: Path, policy: MediaPolicy) -> None:
    fuzzer = Fuzzer.start(tmp_path, replace(policy, seconds=10.0))
    for start in range(0, NUM_FUZZED, 64):
        outcomes = fuzzer.run([mutated(1, index) for index in range(start, start + 64)])
        assert outcomes["embedder: vector"] > 0
        assert set(outcomes) <= OUTCOMES


def test_mutation_depends_on_seed_and_index_only() -> None:
    again = [mutated(3, index).build() for index in (5, 2)]
    assert again == [mutated(3, index).build() for index in (5, 2)]
    assert mutated(4, 5).build() != again[0]
