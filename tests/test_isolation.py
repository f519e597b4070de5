"""Decoder processes: results equal to those of this process, limits of time and memory, crashes, and their end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import Embedder, Loader, MediaError, PolicyError
from qwen3vl.inputs import as_image, as_video
from qwen3vl.media import DEFAULT_POLICY, UNTRUSTED_POLICY, MediaPolicy
from qwen3vl.media.images import read_image_header
from qwen3vl.media.isolation import decode, decode_stream
from qwen3vl.media.isolation.pool import POOL, DecoderPool
from qwen3vl.media.isolation.shared_buffer import SharedBuffer
from qwen3vl.media.videos import read_video_header
from tests.support import decoder_operations as operations
from tests.support.decoder_scripts import is_running, start_script, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="decoder processes inherit file descriptors")

ISOLATED = MediaPolicy(isolated=True)
SHORT = MediaPolicy(isolated=True, seconds=0.5)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("name", ["photo-jpeg", "translucent", "palette", "still-gif", "grey"])
def test_images_are_equal_to_those_decoded_in_this_process(media: dict[str, Path], name: str, as_bytes: bool) -> None:
    reference = as_image(media[name].read_bytes() if as_bytes else media[name])
    here, isolated = (read_image_header(reference, policy, exif=True) for policy in (MediaPolicy(), ISOLATED))
    assert (here.width, here.height, here.identity) == (isolated.width, isolated.height, isolated.identity)
    for size in (None, (96, 160)):
        np.testing.assert_array_equal(here.load(size), isolated.load(size))


def test_pages_are_equal_to_those_rendered_in_this_process(library_folder: Path) -> None:
    reference = as_image(f"{library_folder / 'slides.pdf'}#page=2")
    here, isolated = (read_image_header(reference, policy) for policy in (MediaPolicy(), ISOLATED))
    np.testing.assert_array_equal(here.load(None), isolated.load(None))


@pytest.mark.parametrize("as_bytes", [False, True])
def test_videos_are_equal_to_those_decoded_in_this_process(media: dict[str, Path], as_bytes: bool) -> None:
    reference = as_video(media["clip"].read_bytes() if as_bytes else media["clip"])
    here, isolated = (read_video_header(reference, policy) for policy in (MediaPolicy(), ISOLATED))
    np.testing.assert_array_equal(here.timeline.frame_pts, isolated.timeline.frame_pts)
    np.testing.assert_array_equal(here.timeline.keyframe_pts, isolated.timeline.keyframe_pts)
    assert here.timeline.frame_rate == isolated.timeline.frame_rate
    frame_indices = [here.last_frame, 0, 1, 0]
    np.testing.assert_array_equal(here.load(frame_indices), isolated.load(frame_indices))


def test_loader_yields_the_same_documents(library_folder: Path) -> None:
    here, isolated = (list(Loader(policy=policy).load(library_folder)) for policy in (MediaPolicy(), ISOLATED))
    assert here == isolated


def test_vectors_are_the_same(checkpoints: Path, media: dict[str, Path]) -> None:
    items: list[Any] = [{"image": media["photo"]}, {"video": media["clip"]}, "a text"]
    here, isolated = (
        Embedder(checkpoints / "embedding", device="cpu", policy=policy) for policy in (MediaPolicy(), ISOLATED)
    )
    for item in items:  # one at a time: neighbours in a batch change the rounding
        np.testing.assert_array_equal(here.embed([item]), isolated.embed([item]))


def test_untrusted_media_are_isolated_by_default() -> None:
    assert UNTRUSTED_POLICY.isolated
    assert not DEFAULT_POLICY.isolated


def test_values_arrive_as_they_were_sent() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for data in (b"", b"\0\xff" * 100_000):
        received = decode(ISOLATED, operations.echo, data, Path("/a b"), array, "\ud800 text")
        assert received[:2] == [data, Path("/a b")]
        np.testing.assert_array_equal(received[2], array)
        assert received[3] == "\ud800 text"


def test_empty_array_arrives_after_other_data() -> None:
    """Such as the key frames of a video that marks none; its place is beyond the end of the buffer."""
    received = decode(ISOLATED, operations.echo, b"12345", Path("/a"), np.empty(0, np.int64), "")
    np.testing.assert_array_equal(received[2], np.empty(0, np.int64))
    assert received[0] == b"12345"


def test_process_is_kept_for_the_next_item() -> None:
    assert decode(ISOLATED, operations.process_id) == decode(ISOLATED, operations.process_id) != os.getpid()


def test_item_that_takes_too_long_is_an_error() -> None:
    with pytest.raises(PolicyError, match=r"more than the 0.5 seconds .*MediaPolicy.seconds"):
        decode(SHORT, operations.hang)
    assert decode(SHORT, operations.process_id) != os.getpid()


def test_item_that_hangs_does_not_hold_up_others(tmp_path: Path) -> None:
    started = tmp_path / "started"
    errors: list[BaseException] = []

    def hang() -> None:
        try:
            decode(replace(ISOLATED, seconds=600), operations.hang, started)
        except MediaError as error:
            errors.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    wait_until(started.exists)
    assert decode(ISOLATED, operations.process_id) != os.getpid()
    assert thread.is_alive()
    os.kill(int(started.read_text()), signal.SIGKILL)
    thread.join(30)
    assert "crashed (SIGKILL)" in str(errors[0])


@pytest.mark.parametrize(("operation", "signal_name"), [(operations.crash, "SIGSEGV"), (operations.abort, "SIGABRT")])
def test_crash_of_a_decoder_is_an_error(operation: Callable[[], None], signal_name: str) -> None:
    with pytest.raises(MediaError, match=rf"decoder crashed \({signal_name}\)"):
        decode(ISOLATED, operation)
    assert decode(ISOLATED, operations.process_id) != os.getpid()


def test_unexpected_exception_is_a_media_error_with_and_without_isolation() -> None:
    for policy in (MediaPolicy(), ISOLATED):
        with pytest.raises(MediaError, match="it is broken: KeyError: 'no such box'"):
            decode(policy, operations.fail)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
@pytest.mark.parametrize("operation", [operations.allocate, operations.return_zeros])
def test_memory_of_an_item_is_limited(operation: Callable[[int], Any]) -> None:
    policy = replace(ISOLATED, memory=256 * 2**20)
    with pytest.raises(PolicyError, match=r"more memory than the 256 MiB .*MediaPolicy.memory"):
        decode(policy, operation, 300 * 2**20)
    decode(policy, operation, 100 * 2**20)


def test_time_of_a_stream_is_counted_for_all_values_or_for_each() -> None:
    policy = replace(ISOLATED, seconds=1.5)
    values = list(decode_stream(policy, operations.count, 4, 0.5, limit_each_value=True))
    assert [value[0] for value in values] == [0, 1, 2, 3]
    with pytest.raises(PolicyError, match="seconds"):
        list(decode_stream(policy, operations.count, 4, 0.5))


def test_time_that_the_caller_takes_is_not_counted() -> None:
    stream = decode_stream(replace(ISOLATED, seconds=1.0), operations.count, 3, 0.0)
    numbers = []
    for value in stream:
        time.sleep(0.5)
        numbers.append(int(value[0]))
    assert numbers == [0, 1, 2]


def test_stream_that_is_not_read_to_its_end_frees_its_process() -> None:
    pool_size = POOL.max_processes
    for _ in range(pool_size + 1):
        stream = decode_stream(ISOLATED, operations.count, 100, 0.0)
        assert next(stream)[0] == 0
        stream.close()
    assert decode(ISOLATED, operations.process_id) != os.getpid()


def test_decoders_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert decode(ISOLATED, operations.print_noise) == "done"
    assert capfd.readouterr() == ("", "")


def test_process_that_ended_while_idle_is_replaced() -> None:
    process_id = decode(ISOLATED, operations.process_id)
    os.kill(process_id, signal.SIGKILL)
    wait_until(lambda: not is_running(process_id))
    assert decode(ISOLATED, operations.process_id) != process_id


def test_pool_starts_no_more_processes_than_its_maximum() -> None:
    pool = DecoderPool(2)
    leased: list[int] = []
    both, release = threading.Event(), threading.Event()

    def lease() -> None:
        with pool.lease():
            leased.append(1)
            if len(leased) == 2:
                both.set()
            release.wait(30)

    threads = [threading.Thread(target=lease) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert both.wait(60)
    assert len(leased) == 2
    release.set()
    for thread in threads:
        thread.join(60)
    assert len(leased) == 3
    pool.close()


def test_location_outside_of_the_buffer_is_refused() -> None:
    buffer = SharedBuffer()
    buffer.write([b"abc"])
    for location in ((0, 1000), (-1, 2), (64, 1)):
        with pytest.raises(ValueError, match="the buffer of"):
            buffer.read(location)
    buffer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_starts_decoder_processes_of_its_own() -> None:
    parents = decode(ISOLATED, operations.process_id)
    child = os.fork()
    if child == 0:
        own = decode(ISOLATED, operations.process_id)
        os._exit(0 if own != parents else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert decode(ISOLATED, operations.process_id) == parents


HANG = "decode(policy, operations.block_signals_and_hang, Path(sys.argv[1]))"
HANG_IN_A_THREAD = """
threading.Thread(target=decode, args=(policy, operations.block_signals_and_hang, Path(sys.argv[1]))).start()
while not Path(sys.argv[1]).exists():
    pass
"""


def test_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    output, _ = start_script("", tmp_path / "started").communicate(timeout=60)
    assert output == b"running\n"


def test_kill_of_the_process_group_leaves_no_decoder(tmp_path: Path) -> None:
    started = tmp_path / "started"
    process = start_script(HANG, started)
    wait_until(lambda: started.exists() and started.read_text() != "")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    wait_until(lambda: not is_running(int(started.read_text())))


def test_decoder_ends_by_itself_after_its_program_was_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    process = start_script(HANG, started, seconds=1)
    wait_until(lambda: started.exists() and started.read_text() != "")
    process.kill()
    process.wait(30)
    wait_until(lambda: not is_running(int(started.read_text())))


def test_program_does_not_wait_for_a_hanging_decoder_when_it_ends(tmp_path: Path) -> None:
    started = tmp_path / "started"
    process = start_script(HANG_IN_A_THREAD, started)
    process.communicate(timeout=60)
    wait_until(lambda: not is_running(int(started.read_text())))
