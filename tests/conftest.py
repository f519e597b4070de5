"""Checkpoints, media and models that many tests share. Everything is built here: no network, no download.

What takes long to import is imported by the fixtures that need it: `pytest -n` imports this module in a process that
runs no test, before those that do are started.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import memory_disk

if TYPE_CHECKING:
    from qwen3vl import Embedder, Reranker

pytest_plugins = ["tests.support.store_fixtures", "tests.support.models_by_url"]

# This process and those that tests start import torch and Ray in a third of the time if bytecode is kept somewhere.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    prefix = os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / "build/bytecode"))
    sys.pycache_prefix, sys.dont_write_bytecode = prefix, False
memory_disk.use()

MAX_WORKERS = 4
"""Each process of pytest-xdist loads torch and models of its own: 2 GiB."""
GOLDEN = Path(__file__).parent / "golden"
CASES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))
REFERENCE: dict[str, dict[str, Any]] = json.loads((GOLDEN / "reference.json").read_text(encoding="utf-8"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes for `-n auto`; 0 runs the tests in this one, as is faster for a single file."""
    if len(config.args) == 1 and ".py" in config.args[0]:
        return 0
    num_cores = os.cpu_count() or 1
    num_workers = min(MAX_WORKERS, num_cores)
    # Inherited by the processes, whose threads would otherwise compete for the cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(num_cores // num_workers))
    return num_workers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with Ray's tests, which take longest.

    Processes get parts of the list, and whoever is done takes from the end of another one's part: in a run of all
    tests, Ray's stay in one process, with one Ray at a time, as long as others are left.
    """
    items.sort(key=lambda item: item.path.parent.name != "ray")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that was imported, instead of looking through it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _keyboard_interrupts() -> None:
    """Ctrl-C raises KeyboardInterrupt, also if a shell started pytest in the background, where SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the golden checkpoints `embedding`, `reranker` (tied head) and `reranker-untied`."""
    from tests.golden import checkpoint

    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoint.build_all(folder)
    return folder


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The golden images, frames and video (`clip`) by name."""
    from tests.golden import inputs

    return {**inputs.media(tmp_path_factory.mktemp("media")), "clip": GOLDEN / "clip.mp4"}


@pytest.fixture(scope="session")
def golden_embedder(checkpoints: Path) -> Embedder:
    from qwen3vl import Embedder

    return Embedder(checkpoints / "embedding", device="cpu")


@pytest.fixture(scope="session")
def golden_reranker(checkpoints: Path) -> Reranker:
    from qwen3vl import Reranker

    return Reranker(checkpoints / "reranker", device="cpu")


@pytest.fixture(scope="session")
def tiny_embedder() -> Embedder:
    from qwen3vl import Embedder

    return Embedder("tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny_reranker() -> Reranker:
    from qwen3vl import Reranker

    return Reranker("tiny", device="cpu")


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder with every kind of file: see `tests.support.sample_library`."""
    from tests.support import sample_library

    return sample_library.write(tmp_path_factory.mktemp("library"))


@pytest.fixture
def decoder_leases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows whenever a decoder process is used."""
    from qwen3vl.media.isolation.pool import DecoderPool

    leases: list[str] = []
    lease = DecoderPool.lease

    def counted(pool: DecoderPool) -> Any:
        leases.append("lease")
        return lease(pool)

    monkeypatch.setattr(DecoderPool, "lease", counted)
    return leases


@pytest.fixture
def server() -> Iterator[Any]:
    """An HTTP server on this machine; a test sets its responses by path."""
    from tests.support.http_server import Server

    with Server() as http_server:
        yield http_server


@pytest.fixture(scope="session")
def chroma_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Chroma server in a process of its own."""
    from tests.support.store_backends import chroma_server

    with chroma_server(tmp_path_factory.mktemp("chroma")) as port:
        yield port


def resolve(case: dict[str, Any], media: dict[str, Path]) -> dict[str, Any]:
    """Return a golden case with the names of its media replaced by paths."""

    def to_paths(value: Any) -> Any:
        return [to_paths(name) for name in value] if isinstance(value, list) else str(media[value])

    return {key: to_paths(value) if key in ("image", "video") else value for key, value in case.items()}
