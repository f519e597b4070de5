"""A job that is killed as a whole: started again, it embeds what was not stored, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from qwen3vl_ray.pools import MAX_CALLS
from qwen3vl_server import SERVER_POLICY, create_app

from qwen3vl import Embedder, Store, open_store
from tests.ray.one_job import BATCH_SIZE, NUM_WORKERS, run
from tests.ray.programs import start_program
from tests.ray.workers import children_of, wait_for
from tests.support import qdrant_rest
from tests.support.model_server import ModelServer

pytestmark = [
    pytest.mark.usefixtures("local_ray"),  # on which the job is done again
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes to kill in /proc"),
]
NUM_TEXTS = 240


def kill(job: subprocess.Popen[str]) -> None:
    """Kill the driver and all processes of its Ray at once."""
    processes = [job.pid, *children_of(job.pid)]
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    job.wait()
    wait_for(lambda: not any(is_running(pid) for pid in processes))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def settled_count(store: Store) -> int:
    """Return the number of points after the requests that were sent before the kill."""
    counts = [-1, store.count()]
    while counts[-1] != counts[-2]:
        time.sleep(0.5)
        counts.append(store.count())
    return counts[-1]


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path) -> None:
    """The model is a server, which counts what is embedded."""
    manifest = tmp_path / "texts.jsonl"
    rows = (
        json.dumps({"source": str(number), "text": f"a red star and {number} rings"}) for number in range(NUM_TEXTS)
    )
    manifest.write_text("\n".join(rows))
    with (
        qdrant_rest.serve() as port,
        Embedder("tiny", device="cpu", policy=SERVER_POLICY) as embedder,
        ModelServer(create_app(embedder=embedder)) as server,
    ):

        def num_embedded() -> int:
            return int(embedder.engine.stats.items)

        location = f"http://127.0.0.1:{port}"
        store = open_store(location)
        job = start_program("tests.ray.one_job", location, server.url, str(manifest))
        wait_for(lambda: store.count() > 0 or job.poll() is not None)
        kill(job)
        stored = settled_count(store)
        assert 0 < stored < NUM_TEXTS, "the job was not killed in the middle"
        wait_for(lambda: server.waiting_items == 0)
        before = num_embedded()
        assert before - stored <= NUM_WORKERS * MAX_CALLS * BATCH_SIZE, "more was lost than workers had at once"
        report = run(location, server.url, str(manifest))
        assert (report.added, report.unchanged, report.failed) == (NUM_TEXTS - stored, stored, [])
        assert num_embedded() - before == NUM_TEXTS - stored
        assert store.count() == NUM_TEXTS
