"""Images and PDF pages: the header is read and checked first, the pixels are decoded later."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.hashing import bytes_digest
from qwen3vl.inputs import ImageReference
from qwen3vl.media.isolation import decode
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.source import MediaSource, check_pixels, open_source
from qwen3vl.types import Pixels, Size

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Image formats that are opened, by Pillow's names. Formats that start other programs, such as EPS, are not."""
_TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageHeader:
    """What is known of an image before it is decoded.

    Attributes:
        width: Pixels per row.
        height: Number of rows.
        identity: Equal for images with the same pixels.
        load: Decodes the image to RGB and resizes it to a height and width with Pillow's bicubic filter, or keeps its
            size if that is None: (height, width, 3) uint8. It may be called on any thread, and raises `MediaError` if
            the file is broken or was changed since its header was read.
        buffered_bytes: Size of the encoded file that is kept in memory for `load`, in bytes.
    """

    width: int
    height: int
    identity: Hashable
    load: Callable[[Size | None], Pixels]
    buffered_bytes: int = 0


def read_image_header(reference: ImageReference, policy: MediaPolicy, *, exif: bool = False) -> ImageHeader:
    """Read the header of an image, or the size of a PDF page.

    Args:
        reference: The image.
        policy: Limits on files, addresses and sizes.
        exif: Whether the image is rotated by its EXIF orientation.

    Returns:
        The header; the image is not decoded yet, unless the reference holds pixels.

    Raises:
        MediaError: The image is missing or broken.
        PolicyError: The policy does not allow it.
    """
    if reference.origin == "pixels":
        image: Image.Image = reference.data
        width, height = oriented_size(image, exif)
        check_pixels(width, height, policy)
        pixels_identity = (width, height, bytes_digest(oriented_rgb(image, exif).tobytes()))
        return ImageHeader(width, height, pixels_identity, lambda size: to_pixels(oriented_rgb(image, exif), size))
    return _read_encoded(open_source(reference, policy), reference.page, policy, exif=exif)


def image_size(data: Path | bytes, exif: bool) -> tuple[int, int]:
    """Return the size of an image by its header.

    Args:
        data: An image file, or its bytes.
        exif: Whether the image is rotated by its EXIF orientation.

    Returns:
        Width and height in pixels.

    Raises:
        MediaError: The header is broken.
        PolicyError: The image is larger than Pillow opens.
    """
    with _open(data) as opened:
        return oriented_size(opened, exif)


def decode_image(data: Path | bytes, exif: bool, size: Size | None) -> Pixels:
    """Decode an image to RGB.

    Args:
        data: An image file, or its bytes.
        exif: Whether the image is rotated by its EXIF orientation.
        size: Height and width of the result; None keeps the image's own.

    Returns:
        Pixels, (height, width, 3) uint8.

    Raises:
        MediaError: The image is broken.
    """
    with _open(data) as opened:
        try:
            image = oriented_rgb(opened, exif)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise nearly anything on broken files
            raise MediaError(f"the image is broken: {error or type(error).__name__}; export it again") from error
    return to_pixels(image, size)


def to_pixels(image: Image.Image, size: Size | None) -> Pixels:
    """Resize an RGB image with Pillow's bicubic filter and return its pixels.

    Args:
        image: An RGB image.
        size: Height and width of the result; None keeps the image's own.

    Returns:
        Pixels, (height, width, 3) uint8.
    """
    if size is not None:
        height, width = size
        image = image.resize((width, height))
    return np.array(image)


def rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB: RGBA over white, every other mode as Pillow converts it.

    This is `to_rgb` of qwen-vl-utils 0.0.14, `vision_process.py`.

    Args:
        image: An image of any mode.

    Returns:
        An image of mode RGB.
    """
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _read_encoded(source: MediaSource, page: int | None, policy: MediaPolicy, *, exif: bool) -> ImageHeader:
    """Return the header of an encoded image, or of a page of a PDF."""
    read_size: Callable[..., tuple[int, int]] = image_size
    read_pixels: Callable[..., Pixels] = decode_image
    argument: int = exif  # of both functions
    if page is not None:
        from qwen3vl.media.pdf import page_size, render_page  # PDFium would delay the start of every process

        read_size, read_pixels, argument = page_size, render_page, page
    width, height = decode(policy, read_size, source.data, argument)
    check_pixels(width, height, policy)

    def load(size: Size | None) -> Pixels:
        pixels = decode(policy, read_pixels, source.data, argument, size)
        source.require_unchanged()
        return pixels

    identity: Hashable = (source.content_digest(), exif)
    if page is not None:
        identity = (identity, page)
    return ImageHeader(width, height, identity, load, source.buffered_bytes)


def oriented_size(image: Image.Image, exif: bool) -> tuple[int, int]:
    """Return the size of an image, after the rotation by its EXIF orientation if `exif`.

    Args:
        image: An image.
        exif: Whether it is rotated.

    Returns:
        Width and height in pixels.
    """
    transposed = exif and image.getexif().get(ExifTags.Base.Orientation, 1) in _TRANSPOSED_ORIENTATIONS
    return (image.height, image.width) if transposed else image.size


def oriented_rgb(image: Image.Image, exif: bool) -> Image.Image:
    """Convert an image to RGB as `rgb` does, after the rotation by its EXIF orientation if `exif`.

    Args:
        image: An image of any mode.
        exif: Whether it is rotated.

    Returns:
        An image of mode RGB.
    """
    return rgb(ImageOps.exif_transpose(image) if exif else image)


def _open(data: Path | bytes) -> Image.Image:
    """Open an image and read its header."""
    try:
        # Pillow's warning about large images stays: filters of warnings belong to the program, not to a thread of ours.
        return Image.open(BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PolicyError(f"it is too large to be opened safely: {error}; pass a smaller image") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"this is not an image that can be read; convert it to one of {', '.join(FORMATS)}") from error
    except FileNotFoundError as error:
        raise MediaError("the file does not exist; check its path") from error
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, RuntimeError) as error:
        raise MediaError(f"the image is broken: {error}; export it again") from error
