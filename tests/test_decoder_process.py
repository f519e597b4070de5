"""Decoder processes that send nonsense, that inherit odd settings, and machines that run out of something."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import MediaError, PolicyError
from qwen3vl.media import MediaPolicy
from qwen3vl.media.isolation import decode, process
from qwen3vl.media.isolation.process import DecoderProcess
from tests.support import decoder_operations as operations
from tests.support.decoder_scripts import is_running, start_script, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets limits of other processes")

ISOLATED = MediaPolicy(isolated=True)
MIB = 2**20


def run(decoder: DecoderProcess, operation: Callable[..., Any], *arguments: Any, seconds: float = 30) -> Any:
    name = f"{operation.__module__}:{operation.__qualname__}"
    (value,) = decoder.stream(name, arguments, seconds=seconds, memory=256 * MIB, limit_each_value=False)
    return value


@pytest.fixture
def decoder() -> Iterator[DecoderProcess]:
    decoder = DecoderProcess()
    yield decoder
    decoder.kill()


@contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    """Lower a limit of this process."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("module", ["json", "signal"])
def test_modules_of_the_current_folder_are_not_run(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder may be one of uploads."""
    (tmp_path / f"{module}.py").write_text("from pathlib import Path; Path('was-run').touch()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # "" would be the current folder
    decoder = DecoderProcess()
    try:
        assert run(decoder, operations.process_id) != os.getpid()
    finally:
        decoder.kill()
    assert [path.name for path in tmp_path.iterdir()] == [f"{module}.py"]


@pytest.mark.parametrize(
    "message",
    [
        b"no JSON",
        b"\xff\xfe",
        b"7",
        b"[1, 2, 3]",
        b"[{}, []]",
        b'[{"done": 1}, []]',
        b'["done", []]',
        b"[" * 100_000,
        b'[{"done": true, "value": {"bytes": 5}}, []]',
        b'[{"done": true, "value": {"bytes": "a"}}, []]',
        b'[{"done": true, "value": {"path": 5}}, []]',
        b'[{"done": true, "value": {"bytes": 0}}, [["a", "b"]]]',
        b'[{"done": true, "value": {"bytes": 0}}, [[0, 1000000000000000]]]',
        b'[{"done": true, "value": {"bytes": 0}}, [[0, -1]]]',
        b'[{"done": true, "value": {"array": 0, "dtype": "object", "shape": [1]}}, [[0, 8]]]',
        b'[{"done": true, "value": {"array": 0, "dtype": "uint8", "shape": ["a"]}}, [[0, 0]]]',
        b'[{"done": true, "value": {"array": 0, "dtype": "uint8"}}, [[0, 0]]]',
    ],
)
def test_message_that_is_no_reply_is_an_error_of_its_item(message: bytes) -> None:
    with pytest.raises(MediaError, match="its decoder sent something that is no reply"):
        decode(ISOLATED, operations.send_message, message)
    assert decode(ISOLATED, operations.process_id) != os.getpid()


def test_data_of_a_reply_may_not_exceed_the_limit_of_memory(decoder: DecoderProcess) -> None:
    decoder._channel.buffer.write([b"x"])
    os.truncate(decoder._channel.buffer.file_descriptor, 2**40)  # sparse
    message = b'[{"done": true, "value": {"bytes": 0}}, [[0, 1000000000000]]]'
    with pytest.raises(MediaError, match=r"no reply .*more than 536870912 bytes"):
        run(decoder, operations.send_message, message)


def test_message_that_stops_halfway_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_TRANSFER_TIMEOUT_S", 1)
    decoder = DecoderProcess()
    with pytest.raises(MediaError, match="no reply"):
        run(decoder, operations.send_part_of_a_message)
    assert not decoder.usable


def test_process_that_ends_between_two_values_is_an_error_with_its_exit_status(
    decoder: DecoderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_EXIT_TIMEOUT_S", 60)
    with pytest.raises(MediaError, match=r"its decoder crashed \(exit code 3\)"):
        run(decoder, operations.end_after_a_value)
    assert not decoder.usable


def test_signals_of_the_group_do_not_interrupt_an_item(decoder: DecoderProcess) -> None:
    process_id = run(decoder, operations.process_id)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process_id, number)
    assert run(decoder, operations.process_id) == process_id


def test_process_ends_in_time_even_if_its_program_blocks_the_alarm() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        decoder = DecoderProcess()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert not run(decoder, operations.blocks_alarm)
    decoder.kill()


def test_limit_of_memory_that_the_process_inherits_is_kept(decoder: DecoderProcess) -> None:
    _, hard = resource.prlimit(decoder._process.pid, resource.RLIMIT_AS)
    resource.prlimit(decoder._process.pid, resource.RLIMIT_AS, (2**40, hard))
    assert run(decoder, operations.address_space_limit)[0] < 2**40
    wait_until(lambda: resource.prlimit(decoder._process.pid, resource.RLIMIT_AS) == (2**40, hard))
    resource.prlimit(decoder._process.pid, resource.RLIMIT_AS, (2**30 - 2**20, hard))
    assert run(decoder, operations.address_space_limit)[0] <= 2**30 - 2**20


def test_process_that_cannot_be_started_is_an_error_of_its_item() -> None:
    num_open = count_open_files()
    with (
        limit(resource.RLIMIT_NOFILE, 3),  # less than are open: those may have gaps between them
        pytest.raises(MediaError, match=r"no decoder process can be started \(.*raise the limit"),
    ):
        DecoderProcess()
    assert count_open_files() == num_open


def test_file_that_cannot_be_sent_is_an_error_of_its_item() -> None:
    """The shared buffer cannot grow; trying again with another process would not end."""
    decode(ISOLATED, operations.process_id)
    arguments = (b"x" * 2 * MIB, Path("/a"), np.empty(0, np.uint8), "")
    with limit(resource.RLIMIT_FSIZE, MIB), pytest.raises(MediaError, match="cannot be sent to a decoder process"):
        decode(ISOLATED, operations.echo, *arguments)
    assert decode(ISOLATED, operations.echo, *arguments)[0] == arguments[0]


def test_result_that_cannot_be_sent_is_an_error_of_its_item(decoder: DecoderProcess) -> None:
    _, hard = resource.prlimit(decoder._process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(decoder._process.pid, resource.RLIMIT_FSIZE, (MIB, hard))
    with pytest.raises(PolicyError, match="more memory"):
        run(decoder, operations.return_zeros, 2 * MIB)


def test_long_messages_of_decoders_are_cut(decoder: DecoderProcess) -> None:
    with pytest.raises(MediaError) as error:
        run(decoder, operations.fail_at_length)
    assert len(str(error.value)) < 2200


def test_streams_that_are_closed_do_not_matter(tmp_path: Path) -> None:
    """As in a daemon: the sockets would take the numbers 0, 1 and 2."""
    started = tmp_path / "started"
    body = """
from qwen3vl.media.isolation.pool import POOL
POOL.close()
for stream in (0, 1, 2):
    os.close(stream)
Path(sys.argv[1]).write_text(str(decode(policy, operations.process_id)))
"""
    start_script(body, started).communicate(timeout=60)
    assert int(started.read_text())


def test_forked_process_does_not_keep_its_parents_decoders_alive(tmp_path: Path) -> None:
    """Not even those in use, whose connections the forked process inherits with the generators that read them."""
    started = tmp_path / "started"
    body = """
import time
from qwen3vl.media.isolation import decode_stream
process_id = decode(policy, operations.process_id)
values = decode_stream(policy, operations.count, 3, 0.0)
next(values)
if os.fork() == 0:
    Path(sys.argv[1]).write_text(str(process_id))
    time.sleep(600)
time.sleep(600)
"""
    script = start_script(body, started)
    try:
        wait_until(lambda: started.exists() and started.read_text() != "")
        process_id = int(started.read_text())
        assert is_running(process_id)
        script.kill()
        script.wait(30)
        wait_until(lambda: not is_running(process_id), seconds=10)
    finally:
        os.killpg(script.pid, signal.SIGKILL)


def test_end_of_a_program_ends_its_decoders_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "always::ResourceWarning")
    body = "sys.stdout.write(str(decode(policy, operations.process_id)))"
    script = start_script(body, tmp_path / "started")
    output, _ = script.communicate(timeout=60)
    process_id = int(output.removeprefix(b"running\n"))
    wait_until(lambda: not is_running(process_id))


def test_interrupt_of_an_item_ends_its_process(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with pytest.raises(KeyboardInterrupt):
        decode(ISOLATED, operations.interrupt_parent_and_hang, started)
    assert not is_running(int(started.read_text()))


def test_interrupt_of_a_start_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    process_ids = []

    def interrupted(decoder: DecoderProcess, *_: Any, **__: Any) -> None:
        process_ids.append(decoder._process.pid)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(DecoderProcess, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        DecoderProcess()
    assert not is_running(*process_ids)


def test_process_that_starts_with_nonsense_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that sends a message of one byte takes the place of the interpreter."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!{sys.executable}\nimport os, sys\nos.write(int(sys.argv[4]), b"\\0\\0\\0\\x01[")\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(MediaError, match="a decoder process ended while it started"):
        DecoderProcess()


def test_path_objects_in_the_module_search_path_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    decoder = DecoderProcess()
    decoder.kill()
