"""A Ray of this machine that the tests start and stop themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Workers are started in this environment, and not by `uv run`, as this process may be.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
# The memory that others use on this machine must not make Ray kill workers.
os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 (Ray's own name)
# Workers have the priority of the tests, instead of the lowest: they would wait for whatever else runs on this machine.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
NODE_KEY = "a-key-of-the-nodes"
"""Key of stores in the environment of `local_ray`."""
NUM_CPUS = 4
"""Logical cores: a pool of actors, the tasks of a source and those of a sink have to fit beside one another."""
OBJECT_STORE_BYTES = 128 * 2**20
_NUM_ATTEMPTS = 3
"""Ray gives a node 30 s to start, which are not enough on a busy machine at times."""


class _ModuleWithoutRay(pytest.Module):
    """A module of tests that is not imported."""

    def collect(self) -> Any:
        pytest.skip("Ray is not installed: it has no wheel for every system and version of Python")


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    """Skip all modules of this folder where there is no Ray."""
    return None if find_spec("ray") else _ModuleWithoutRay.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def ray_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder of the workers of `local_ray`."""
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="session")
def local_ray(ray_folder: Path) -> Iterator[Any]:
    """Ray with one node, for all tests that need no cluster."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # it may have relative paths
        patch.setenv("QDRANT_API_KEY", NODE_KEY)
        patch.chdir(ray_folder)
        for attempt in range(_NUM_ATTEMPTS):
            try:
                ray.init(
                    "local",  # not one that runs on this machine already
                    num_cpus=NUM_CPUS,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    configure_logging=False,
                )
                break
            except Exception:
                ray.shutdown()
                if attempt == _NUM_ATTEMPTS - 1:
                    raise
    try:
        yield ray
    finally:
        ray.shutdown()
