"""References to images and videos are parsed to what they name; those that are malformed are errors of the input."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from PIL import Image

from qwen3vl.errors import InputError, MediaError
from qwen3vl.inputs import as_image, as_item, as_video
from qwen3vl.media.images import read_image_header
from qwen3vl.media.policy import MediaPolicy

NAMES = ["plain.png", "100%25.png", "a%20b.png", "a b.png", "a#b.png", "a?b.png", "é%C3%A9.png", "%.png"]


@pytest.mark.parametrize("name", NAMES)
def test_file_url_names_the_file_that_it_was_made_of(name: str, tmp_path: Path) -> None:
    """A name may have the form of a percent escape, which `as_uri` escapes once more."""
    path = tmp_path / name
    image, video = as_image(path.as_uri()), as_video(f"{path.as_uri()}#t=1,2")
    assert (image.origin, Path(image.data)) == ("path", path)
    assert (Path(video.data), video.start, video.end) == (path, 1, 2)


def test_file_url_that_is_written_by_hand(tmp_path: Path) -> None:
    folder = tmp_path.as_uri()
    assert Path(as_image(f"{folder}/a#b?c é.png").data) == tmp_path / "a#b?c é.png"
    assert Path(as_image(f"file://localhost{folder.removeprefix('file://')}/a.png").data) == tmp_path / "a.png"


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode on this system")
def test_file_url_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    assert Path(as_image(path.as_uri()).data) == path


def test_data_uri_without_base64_has_a_byte_for_each_escape() -> None:
    """RFC 2397: binary data may be percent-encoded."""
    encoded = BytesIO()
    Image.new("RGB", (3, 2), "teal").save(encoded, "PNG")
    assert as_image(f"data:image/png,{quote_from_bytes(encoded.getvalue())}").data == encoded.getvalue()
    assert as_image("data:text/plain;charset=utf-8,%C3%A9").data == b"\xc3\xa9"


def test_path_with_the_times_of_a_part_is_a_video(tmp_path: Path) -> None:
    (video,) = as_item(tmp_path / "clip.mp4#t=10,25").videos
    assert (Path(video.data), video.start, video.end) == (tmp_path / "clip.mp4", 10, 25)
    (video,) = as_item({"video": [f"{tmp_path.as_uri()}/a#b.mp4"]}).videos
    assert Path(video.data) == tmp_path / "a#b.mp4"


class BytesPath:
    """A path-like object whose path is bytes."""

    def __fspath__(self) -> bytes:
        return b"folder/x.png"


def test_path_of_bytes_is_decoded() -> None:
    assert as_item(BytesPath()).images[0].data == "folder/x.png"


@pytest.mark.parametrize(
    "reference",
    ["http://[bad", "http://127.0.0.1/\ud83d.png", "file://[bad/a.png", f"a.pdf#page={'9' * 5000}"],
    ids=["brackets", "lone surrogate", "file on a host", "page"],
)
def test_malformed_reference_is_no_error_of_another_kind(reference: str) -> None:
    """Callers may parse inputs one after the other, and handle `InputError` alone."""
    for value in ({"video": [reference]}, {"image": reference}):
        try:
            item = as_item(value)
        except InputError:
            continue
        (image,) = [*item.images, *(frame for video in item.videos for frame in video.frames)]
        with pytest.raises(MediaError):
            read_image_header(image, MediaPolicy())


def test_name_of_a_reference_that_is_too_long_for_one() -> None:
    for value in ("A" * 10**6, f"file:///{'A' * 10**6}", f"https://example.com/{'A' * 10**6}"):
        for reference in (as_image(value), as_video(value)):
            assert (len(reference.data), len(reference.name)) == (len(value.removeprefix("file://")), 4096)
            assert reference.name.endswith("A…")
