"""Rows that kill the process which works on them: they become rows with an error, instead of being tried for ever.

Ray starts the process of a worker again, and gives it the same batch again, without a limit: what ended it may have
been a node that is gone, or others that took the memory. A batch that has ended several workers is therefore done row
by row, and a row that ends a worker alone is not tried again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import ray

from qwen3vl_ray.rows import ERROR, errors_of, set_column

MAX_BATCH_DEATHS = 2
"""Workers that a batch may end before its rows are done one after the other."""
REASON = (
    f"it has ended the process of its worker {MAX_BATCH_DEATHS + 1} times, the last time alone, and is not tried again "
    "in this run: Ray's logs say how the process ended. Look at the input, decode media in processes of their own "
    "(MediaPolicy(isolated=True)), or give workers more memory"
)
"""The error of a row that ends workers."""
_MAX_KEYS = 100_000
"""Attempts that are remembered. Those that end are forgotten; of a run that is killed, some are left."""
_ACTOR = "qwen3vl-attempts"


class AttemptLog:
    """Counts attempts that were started and did not end; an actor, since the processes that start them die."""

    def __init__(self) -> None:
        self._started: OrderedDict[str, int] = OrderedDict()

    def start(self, key: str) -> int:
        """Count an attempt.

        Args:
            key: What is attempted.

        Returns:
            The number of attempts that were started before.
        """
        before = self._started.pop(key, 0)
        self._started[key] = before + 1
        if len(self._started) > _MAX_KEYS:
            self._started.popitem(last=False)
        return before

    def cancel(self, key: str) -> None:
        """Take back the last attempt.

        Args:
            key: What was attempted.
        """
        if key in self._started:
            self._started[key] -= 1

    def end(self, key: str) -> None:
        """Forget all attempts, since one has ended.

        Args:
            key: What was attempted.
        """
        self._started.pop(key, None)


class CrashGuard:
    """Runs the batches of a process.

    Args:
        max_calls: Maximum number of batches at once.
    """

    def __init__(self, max_calls: int = 1) -> None:
        self._log = (
            ray.remote(AttemptLog)
            .options(
                name=_ACTOR,
                namespace=_ACTOR,
                get_if_exists=True,
                lifetime="detached",  # otherwise it would end with the process that has asked for it first
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
            )
            .remote()
        )
        self._max_calls = max_calls
        self._calls = threading.Semaphore(max_calls)
        self._alone = threading.Lock()

    def run(self, batch: pa.Table, process: Callable[[pa.Table], Iterator[pa.Table]]) -> Iterator[pa.Table]:
        """Process a batch, or its rows one after the other if it has ended workers before.

        Args:
            batch: Rows.
            process: What is done with them. A row with an error keeps it, and nothing else is done with it.

        Yields:
            What `process` yields.
        """
        # Ray repeats a task under its id, also on another node; a task may have several batches.
        key = f"{ray.get_runtime_context().get_task_id()}:{_digest(batch)}"
        with self._calls:
            if self._call("start", key) < MAX_BATCH_DEATHS:
                try:
                    yield from process(batch)
                finally:  # an error is no death
                    self._call("end", key)
                return
            self._call("cancel", key)
        with self._nothing_else():  # another batch must not be held responsible, nor end this one
            keys = [key]
            for index, error in enumerate(errors_of(batch)):
                row = batch.slice(index, 1)
                row_key = f"{key}:{index}"
                if error is None and self._call("start", row_key):
                    row = set_column(row, ERROR, pa.array([REASON], pa.string()))
                    keys.append(row_key)  # it stays marked until the batch is done, which another row may prevent
                    yield from process(row)
                else:
                    yield from process(row)
                    self._call("end", row_key)
            for each in keys:
                self._call("end", each)

    def _call(self, method: str, key: str) -> Any:
        return ray.get(getattr(self._log, method).remote(key))

    @contextmanager
    def _nothing_else(self) -> Iterator[None]:
        """Wait until no other batch runs in this process, and hold back further ones."""
        with self._alone:
            for _ in range(self._max_calls):
                self._calls.acquire()
            try:
                yield
            finally:
                self._calls.release(self._max_calls)


def _digest(batch: pa.Table) -> str:
    """Return what tells the batches of a task apart, the same in all processes."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, batch.schema) as stream:
        stream.write_table(batch)
    return blake2b(buffer.getvalue(), digest_size=12).hexdigest()
