"""Which frames of a video are decoded, in containers with and without exact seeking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from qwen3vl.inputs import as_video
from qwen3vl.media import MediaPolicy, video_container
from qwen3vl.media.videos import VideoHeader, read_video_header
from qwen3vl.types import Pixels

NUM_FRAMES, SIDE, NUM_BITS = 75, 64, 7


def write_clip(path: Path, container_format: str, codec: str, gop: int, **options: str) -> Path:
    """Write a video with B-frames, each frame of which shows its number as black and white stripes."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    random = np.random.default_rng(0)
    with av.open(str(path), "w", format=container_format, options=options) as container:
        stream: Any = container.add_stream(
            codec, rate=25, options={"g": str(gop), "bf": "2", "sc_threshold": "0", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(NUM_FRAMES):
            pixels = random.integers(60, size=(SIDE, SIDE, 3), dtype=np.uint8)  # frames as large as those of films
            for bit in range(NUM_BITS):
                pixels[:, 9 * bit : 9 * bit + 9] += np.uint8(190 * (number >> bit & 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_number(pixels: Pixels) -> int:
    """Return the number that a frame shows."""
    return sum(int(pixels[:, 9 * bit + 2 : 9 * bit + 7].mean() > 125) << bit for bit in range(NUM_BITS))


def header_of(path: Path) -> VideoHeader:
    return read_video_header(as_video(path), MediaPolicy())


@pytest.mark.parametrize(
    ("container_format", "codec"),
    [
        ("mpegts", "libx264"),
        ("mpegts", "mpeg2video"),
        ("mpeg", "mpeg2video"),
        ("flv", "libx264"),
        ("mp4", "libx264"),
        ("matroska", "libx264"),
    ],
)
@pytest.mark.parametrize("gop", [1, 12])
def test_frames_are_those_that_were_asked_for(tmp_path: Path, container_format: str, codec: str, gop: int) -> None:
    header = header_of(write_clip(tmp_path / "clip.mpg", container_format, codec, gop))
    assert len(header.timeline.frame_pts) == NUM_FRAMES
    for frame_indices in ([0, 25, 50], [NUM_FRAMES - 1], [13], [36, 37, 60], list(range(0, NUM_FRAMES, 7))):
        assert list(map(read_number, header.load(frame_indices))) == frame_indices


def test_beginning_in_the_middle_of_a_group_of_pictures(tmp_path: Path) -> None:
    """Frames before the first key frame cannot be decoded: they are replaced by the next one, the others are right."""
    packet_size = 188
    data = write_clip(tmp_path / "clip.mpg", "mpegts", "mpeg2video", 12).read_bytes()
    (tmp_path / "cut.mpg").write_bytes(data[len(data) // packet_size // 10 * packet_size :])
    header = header_of(tmp_path / "cut.mpg")
    num_lost = NUM_FRAMES - len(header.timeline.frame_pts)
    first_key = int(np.searchsorted(header.timeline.frame_pts, header.timeline.keyframe_pts[0]))
    assert num_lost > 0
    assert first_key > 0
    numbers = list(map(read_number, header.load([0, 30 - num_lost, 50 - num_lost])))
    assert numbers == [first_key + num_lost, 30, 50]


@pytest.mark.parametrize("as_bytes", [False, True])
def test_m2ts_is_read(tmp_path: Path, as_bytes: bool) -> None:
    path = write_clip(tmp_path / "clip.m2ts", "mpegts", "mpeg2video", 12, mpegts_m2ts_mode="1")
    assert path.read_bytes()[4] == 0x47
    header = read_video_header(as_video(path.read_bytes() if as_bytes else path), MediaPolicy())
    assert list(map(read_number, header.load([0, 30, 50]))) == [0, 30, 50]


@pytest.mark.parametrize("container_format", ["mp4", "matroska", "mpegts"])
def test_only_frames_behind_the_key_frame_are_decoded(
    tmp_path: Path, container_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = header_of(write_clip(tmp_path / "clip.mpg", container_format, "mpeg2video", 12))
    decoded: list[Any] = []

    def note_frames(*arguments: Any) -> Iterator[Any]:
        for frame in frames(*arguments):
            decoded.append(frame.pts)
            yield frame

    frames = video_container._frames
    monkeypatch.setattr(video_container, "_frames", note_frames)
    (pixels,) = header.load([50])
    assert read_number(pixels) == 50
    assert len(decoded) <= 14  # a group of pictures, and the two B-frames before its key frame
