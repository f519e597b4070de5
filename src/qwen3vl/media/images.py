"""Pictures: the header first, the pixels later."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.hashing import bytes_digest, file_digest
from qwen3vl.inputs import ImageReference
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.processing.pixels import rgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is opened; formats that start other programs (EPS) are not."""


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """A picture's size in pixels, what identifies its content, and how to decode it to RGB."""

    width: int
    height: int
    identity: Hashable
    load: Callable[[], Image.Image]
    held: int = 0
    """Bytes of the encoded file that are kept in memory until then."""


def check_file(path: Path, policy: MediaPolicy) -> tuple[str, int, int]:
    """What identifies the file's present content: path, size and time of change."""
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise MediaError("the file does not exist") from error
    except (OSError, ValueError) as error:
        raise MediaError(f"the file cannot be read: {error}") from error
    if not path.is_file():
        raise MediaError("this is not a file")
    if stat.st_size == 0:
        raise MediaError("the file is empty")
    if stat.st_size > policy.max_bytes:
        raise PolicyError(f"the file has {stat.st_size} bytes and the media policy allows {policy.max_bytes}")
    return str(path), stat.st_size, stat.st_mtime_ns


def _held(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else 0


def check_bytes(data: bytes, policy: MediaPolicy) -> bytes:
    """Encoded bytes that a caller sent, within the limit."""
    if len(data) > policy.max_bytes:
        raise PolicyError(f"it has {len(data)} bytes and the media policy allows {policy.max_bytes}")
    return data


@lru_cache(maxsize=1024)
def content_digest(known: tuple[str, int, int]) -> str:
    """Of a file that `check_file` knows; cached while it stays as it is: a PDF has many pages."""
    try:
        return file_digest(Path(known[0]))
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error}") from error


def read_image_header(picture: ImageReference, policy: MediaPolicy, *, exif: bool = False) -> Header:
    """Opens a picture as far as its header.

    Raises `MediaError` where it is missing or broken, `PolicyError` where the policy forbids it.
    """
    if picture.where == "pixels":
        image: Image.Image = picture.data
        width, height = _shown_size(image, exif)
        check_pixels(width, height, policy)
        return Header(width, height, (image.size, bytes_digest(_rgb(image, exif).tobytes())), lambda: _rgb(image, exif))
    known = None
    if picture.where == "path":
        path = policy.check_path(picture.data)
        known = check_file(path, policy)
        identity = (content_digest(known), exif)
        source: Path | bytes = path
    else:
        if picture.where == "url":
            from qwen3vl.media.fetch import fetch  # imported late: httpx would delay the start of every process

            data = fetch(picture.data, policy)
        else:
            data = check_bytes(picture.data, policy)
        source = data
        identity = (bytes_digest(data), exif)
    if picture.page is not None:
        from qwen3vl.media.pdf import page_size, render_page  # imported late, as above: PDFium

        page = picture.page
        width, height = page_size(source, page)
        check_pixels(width, height, policy)
        return Header(width, height, (identity, page), _sure(lambda: render_page(source, page), known), _held(source))
    with _open(source) as opened:
        width, height = _shown_size(opened, exif)
    check_pixels(width, height, policy)
    return Header(width, height, identity, _sure(lambda: _decode(source, exif), known), _held(source))


def _sure(load: Callable[[], Image.Image], known: tuple[str, int, int] | None) -> Callable[[], Image.Image]:
    """Fails where a file changed meanwhile: what it shows now is not to be kept under the digest of what it was."""
    if known is None:
        return load

    def loaded() -> Image.Image:
        picture = load()
        stat = Path(known[0]).stat()
        if (stat.st_size, stat.st_mtime_ns) != known[1:]:
            raise MediaError("the file changed while it was read; try it again")
        return picture

    return loaded


def _shown_size(image: Image.Image, exif: bool) -> tuple[int, int]:
    """Width and height, after the turn that the EXIF tag asks for where that is wanted."""
    turned = exif and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else image.size


def check_pixels(width: int, height: int, policy: MediaPolicy) -> None:
    if width * height > policy.max_pixels:
        raise PolicyError(
            f"it has {width} x {height} pixels and the media policy allows {policy.max_pixels} (MediaPolicy.max_pixels)"
        )
    if width < 1 or height < 1:
        raise MediaError(f"it has {width} x {height} pixels")


def _open(source: Path | bytes) -> Image.Image:
    """The picture with its header read.  Its size is judged by our policy, not by Pillow's warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PolicyError(f"it is too large to be opened safely: {error}") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"this is not a picture that can be read ({', '.join(FORMATS)})") from error
    except FileNotFoundError as error:
        raise MediaError("the file does not exist") from error
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, RuntimeError) as error:
        raise MediaError(f"the picture is broken: {error}") from error


def _decode(source: Path | bytes, exif: bool) -> Image.Image:
    try:
        with _open(source) as opened:
            return _rgb(opened, exif)
    except MediaError:
        raise
    except Exception as error:  # decoders of broken files raise nearly anything
        raise MediaError(f"the picture is broken: {error or type(error).__name__}") from error


def _rgb(image: Image.Image, exif: bool) -> Image.Image:
    return rgb(ImageOps.exif_transpose(image) if exif else image)
