"""Embed and load files that were changed at random, and check that nothing reaches beyond an item.

    uv run python -m tools.fuzz_media [--files 10000] [--seed 0] [--first 0] [--seconds 5] [--in-process]

Bit flips, truncations, splices and false lengths of PNG, JPEG, WEBP, GIF, TIFF, BMP, MP4 and PDF files. They run in a
process of their own, in batches among valid inputs whose vectors must not change. A batch that crashes, hangs or breaks
a promise is run again file by file, and the files that do it alone are kept. Ends with 1 if there are any.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from qwen3vl.media.policy import UNTRUSTED_POLICY
from tests.support.hostile.fuzzing import Fuzzer
from tests.support.hostile.mutation import mutated

BATCH = 64
START_SECONDS = 120.0
"""Deadline of a process's start, with its imports and the vectors of the valid inputs."""


class FailedBatchError(Exception):
    """A batch crashed, hung or broke a promise; the message says which."""


class FuzzProcess:
    """A process that runs batches. It is started when it is needed, and again after it has ended.

    Args:
        seconds: Deadline of an item.
        isolated: Whether items are decoded in processes of their own.
    """

    def __init__(self, seconds: float, *, isolated: bool) -> None:
        self.seconds, self.isolated = seconds, isolated
        self._process: multiprocessing.process.BaseProcess | None = None

    def run(self, seed: int, indices: Sequence[int]) -> Counter[str]:
        """Run a batch.

        Args:
            seed: Seed of the files.
            indices: Numbers of the files.

        Returns:
            Number of files by outcome.

        Raises:
            FailedBatchError: The batch failed.
        """
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other, self.seconds, self.isolated))
            self._process.start()
            other.close()
        self._connection.send((seed, list(indices)))
        # Header, pixels, pages and text of each item have a deadline each.
        if not self._connection.poll(START_SECONDS + 4 * self.seconds * len(indices)):
            self.kill()
            raise FailedBatchError("hangs")
        try:
            received = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self.kill()
            raise FailedBatchError(f"crashes the process (exit code {code})") from None
        if isinstance(received, str):
            self.kill()
            raise FailedBatchError(received)
        counted: Counter[str] = received
        return counted

    def close(self) -> None:
        """Let the process end, if there is one."""
        if self._process is not None:
            self._connection.close()
            self._process.join(self.seconds)
        self.kill()

    def kill(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(connection: Connection, seconds: float, isolated: bool) -> None:
    """Run batches until the other end is closed; send outcomes, or the traceback of a failure."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        policy = replace(UNTRUSTED_POLICY, folders=(folder,), seconds=seconds, isolated=isolated)
        fuzzer = Fuzzer.start(Path(folder), policy)
        while True:
            try:
                seed, indices = connection.recv()
            except EOFError:
                return
            try:
                connection.send(fuzzer.run([mutated(seed, index) for index in indices]))
            except Exception:
                connection.send(traceback.format_exc(limit=-4))


def find_culprits(process: FuzzProcess, seed: int, indices: Sequence[int], reason: str) -> dict[int, str]:
    """Run the files of a failed batch alone.

    Args:
        process: Runs them.
        seed: Seed of the files.
        indices: Numbers of the files.
        reason: How the batch failed.

    Returns:
        How each file fails, by number; if none does alone, how the batch did, by its first number.
    """
    culprits = {}
    for index in indices:
        try:
            process.run(seed, [index])
        except FailedBatchError as error:
            culprits[index] = str(error)
    return culprits or {indices[0]: f"only in a batch of {len(indices)}: {reason}"}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=10_000, help="number of files")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other files")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seconds", type=float, default=5.0, help="deadline of an item")
    parser.add_argument("--in-process", action="store_true", help="decode without isolation")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for the files that fail")
    arguments = parser.parse_args()
    process = FuzzProcess(arguments.seconds, isolated=not arguments.in_process)
    outcomes: Counter[str] = Counter()
    culprits: dict[int, str] = {}
    last = arguments.first + arguments.files
    with tqdm(total=arguments.files, unit="file") as progress:
        for start in range(arguments.first, last, BATCH):
            indices = range(start, min(start + BATCH, last))
            try:
                outcomes += process.run(arguments.seed, indices)
            except FailedBatchError as error:
                culprits |= find_culprits(process, arguments.seed, indices, str(error))
            progress.update(len(indices))
    process.close()
    console = Console()
    table = Table("outcome", "number")
    for outcome, count in sorted(outcomes.items()):
        table.add_row(outcome, str(count))
    console.print(table)
    for index, reason in culprits.items():
        arguments.keep.mkdir(parents=True, exist_ok=True)
        path = mutated(arguments.seed, index).write(arguments.keep)
        console.print(f"{path}: {reason}", markup=False, highlight=False)
    console.print(f"{len(culprits)} of {arguments.files} files broke a promise")
    sys.exit(1 if culprits else 0)


if __name__ == "__main__":
    main()
