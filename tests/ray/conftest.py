"""A Ray of this machine that the tests start and stop themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.ray.forked_worker import serve_workers

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Workers are started in this environment, and not by `uv run`, as this process may be.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
# The memory that others use on this machine must not make Ray kill workers.
os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 (Ray's own name)
# Workers have the priority of the tests, instead of the lowest: they would wait for whatever else runs on this machine.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
# Workers start when there is work for them, and not one for each core beforehand.
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112
# Workers stay for the next task, instead of ending after a second without one.
os.environ["RAY_idle_worker_killing_time_threshold_ms"] = "600000"  # noqa: SIM112
NODE_KEY = "a-key-of-the-nodes"
"""Key of stores in the environment of `local_ray`."""
NODE: dict[str, Any] = {
    "num_cpus": 4,  # a pool of actors, the tasks of a source and those of a sink have to fit beside one another
    "object_store_memory": 128 * 2**20,
    "include_dashboard": False,
}
DRIVER: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
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

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # it may have relative paths
            patch.setenv("QDRANT_API_KEY", NODE_KEY)
            patch.chdir(ray_folder)
            start = _start_node if sys.platform == "linux" else _start_ray
            for attempt in range(_NUM_ATTEMPTS):
                try:
                    start(stack)
                    break
                except Exception:
                    stack.close()
                    if attempt == _NUM_ATTEMPTS - 1:
                        raise
        yield ray


def _start_ray(stack: ExitStack) -> None:
    import ray

    stack.callback(ray.shutdown)
    ray.init("local", **NODE, **DRIVER)  # not one that runs on this machine already


def _start_node(stack: ExitStack) -> None:
    """Start a node whose workers import nothing that all of them need, and connect to it."""
    import ray
    from ray.cluster_utils import Cluster

    worker = stack.enter_context(serve_workers())
    cluster = Cluster()
    stack.callback(cluster.shutdown)
    cluster.add_node(**NODE, setup_worker_path=worker, no_monitor=True, include_log_monitor=False)
    stack.callback(ray.shutdown)
    ray.init(cluster.address, **DRIVER)
