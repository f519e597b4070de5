"""References to images and videos are parsed to what they name; those that are malformed are errors of the input."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from PIL import Image

from qwen3vl.inputs import as_image, as_video

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
