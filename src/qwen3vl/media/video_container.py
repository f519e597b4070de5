"""Containers of videos: reading the times of all frames, and decoding some of the frames."""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.types import Pixels, Size

logging.getLogger("libav").setLevel(logging.ERROR)  # broken files become our errors, not FFmpeg's log lines

MAX_FRAMES = 5_000_000
"""Frames of a whole video: 23 hours at 60 frames per second. A file of a few kilobytes can claim any number."""
_SEEK_TO_DTS = ("mpegts", "mpeg")
"""Demuxers that look for decoding timestamps where they seek; the others look for presentation timestamps."""
_CHUNK_BYTES = 8 * 2**20
"""Pixels that are handed over at once: handing over each small frame alone would take longer than copying it."""


def read_timeline(
    data: Path | bytes,
) -> tuple[int, int, float, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Read the container of a video.

    Args:
        data: A video file, or its bytes.

    Returns:
        The fields of a `Timeline`, in their order.

    Raises:
        MediaError: The video is broken, or has no frames.
        PolicyError: It claims more than `MAX_FRAMES`.
    """
    with _open(data) as container:
        stream = container.streams.video[0]
        if stream.frames > MAX_FRAMES:
            raise PolicyError(_too_many_frames())
        frame_rate = stream.average_rate or stream.guessed_rate
        seeks_to_dts = container.format.name in _SEEK_TO_DTS
        frame_pts, keyframe_pts, keyframe_seeks = array("q"), array("q"), array("q")
        for packet in container.demux(stream):
            if packet.pts is not None and packet.size:
                if packet.is_keyframe and frame_pts:
                    keyframe_pts.append(packet.pts)
                    keyframe_seeks.append(packet.dts if seeks_to_dts and packet.dts is not None else packet.pts)
                frame_pts.append(packet.pts)
                if len(frame_pts) > MAX_FRAMES:
                    raise PolicyError(_too_many_frames())
        width, height = stream.codec_context.width, stream.codec_context.height
    if not frame_pts or not frame_rate:
        raise MediaError("the video has no frames; export it again")
    rate = float(Fraction(frame_rate))
    keys, first_indices = np.unique(np.array(keyframe_pts, dtype=np.int64), return_index=True)
    seeks = np.array(keyframe_seeks, dtype=np.int64)[first_indices]
    return width, height, rate, np.unique(np.array(frame_pts)), keys, seeks


def _too_many_frames() -> str:
    return f"it has more than {MAX_FRAMES} frames; cut it into several files"


def decode_frames(
    data: Path | bytes, size: Size, targets: Sequence[Sequence[int | None]]
) -> Iterator[list[tuple[int, Pixels]]]:
    """Decode frames, seeking to the key frame before each unless the decoder is already past it.

    Not every container can be sought exactly. Where a frame is missed, it and all later ones are decoded from the
    start of the video, without seeking.

    Args:
        data: A video file, or its bytes.
        size: Height and width that all frames must have.
        targets: For each frame its index, its timestamp, the timestamp of the key frame before it (None if that
            is where the video begins) and that to which the demuxer must seek for it. Sorted.

    Yields:
        Index and pixels of frames, (height, width, 3) uint8, as many as fit into `_CHUNK_BYTES`, at least one.

    Raises:
        MediaError: The video is broken.
    """
    chunk = []
    chunk_length = max(1, _CHUNK_BYTES // (3 * size[0] * size[1]))
    for frame in _decode_targets(data, size, targets):
        chunk.append(frame)
        if len(chunk) == chunk_length:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _decode_targets(data: Path | bytes, size: Size, targets: Sequence[Sequence[Any]]) -> Iterator[tuple[int, Pixels]]:
    pending = deque(targets)
    with _open(data) as container:
        yield from _decode_with_seeks(container, size, pending)
    if pending:
        with _open(data) as container:
            yield from _decode_onwards(container, size, pending)


def _decode_with_seeks(container: Any, size: Size, pending: deque[Sequence[Any]]) -> Iterator[tuple[int, Pixels]]:
    """Decode pending targets, and remove them; those that are left were missed by a seek."""
    stream = container.streams.video[0]
    while pending:
        keyframe_pts = pending[0][2]
        if keyframe_pts is None:
            yield from _decode_onwards(container, size, pending, stop_at_key=True)
            continue
        container.seek(pending[0][3], stream=stream, backward=True)
        first = True
        for frame in _frames(container, size):
            if frame.pts > (keyframe_pts if first else pending[0][1]):
                return
            first = False
            if frame.pts == pending[0][1]:
                yield pending.popleft()[0], frame.to_ndarray(format="rgb24")
                if not pending or pending[0][2] > frame.pts:
                    break
        else:  # the video has ended
            return


def _decode_onwards(
    container: Any, size: Size, pending: deque[Sequence[Any]], *, stop_at_key: bool = False
) -> Iterator[tuple[int, Pixels]]:
    """Decode pending targets from the container's start on, and remove them: all, or those before the next key frame.

    For frames that cannot be decoded, the next one is taken.
    """
    for frame in _frames(container, size):
        while frame.pts >= pending[0][1]:
            yield pending.popleft()[0], frame.to_ndarray(format="rgb24")
            if not pending:
                return
        if stop_at_key and pending[0][2] is not None and pending[0][2] > frame.pts:
            return
    raise MediaError(f"the video is broken: its frame {pending[0][0]} cannot be decoded; export it again")


def _frames(container: Any, size: Size) -> Iterator[Any]:
    """Yield the decoded frames that have a timestamp."""
    for frame in container.decode(container.streams.video[0]):
        if frame.pts is None:
            continue
        if (frame.height, frame.width) != tuple(size):
            raise MediaError("the video changes its frame size half way; cut it there")
        yield frame


@contextmanager
def _open(data: Path | bytes) -> Iterator[Any]:
    """Open a container with the demuxer that its first bytes call for.

    FFmpeg's own choice would include playlists and other formats that refer to further files or addresses.
    """
    demuxer = _choose_demuxer(data[:16] if isinstance(data, bytes) else _read_head(data))
    with BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
        try:
            container = av.open(file, format=demuxer, mode="r", metadata_errors="ignore")
        except (av.FFmpegError, ValueError, OSError) as error:
            raise MediaError(f"the video cannot be opened: {error}; export it again") from error
        try:
            if not container.streams.video:
                raise MediaError("the file has no video in it; pass a file with a video stream")
            container.streams.video[0].thread_type = "AUTO"
            yield container
        except av.FFmpegError as error:
            raise MediaError(f"the video is broken: {error}; export it again") from error
        finally:
            container.close()


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror or error}; check its permissions") from error


def _choose_demuxer(head: bytes) -> str:
    """Return the name of FFmpeg's demuxer for a file that begins with these bytes."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    for magic, name in (
        (b"\x1a\x45\xdf\xa3", "matroska"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (b"\x00\x00\x01\xb3", "mpegvideo"),
        (b"FLV", "flv"),
        (b"OggS", "ogg"),
        (b"GIF8", "gif"),
        (b"\x47", "mpegts"),
    ):
        if head.startswith(magic):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head[4:5] == b"\x47":  # packets with a timestamp of four bytes before each, of Blu-ray discs and camcorders
        return "mpegts"
    raise MediaError(
        "this is not a video that can be read; convert it to one of MP4, MOV, MKV, WebM, AVI, MPEG, FLV, OGG, GIF"
    )
