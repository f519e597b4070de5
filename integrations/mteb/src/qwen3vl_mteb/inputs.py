"""Rows of mteb's dataloaders as inputs of a model: texts, images and videos, without files in between."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from datasets import Dataset, Video
from numpy.typing import NDArray
from PIL import Image

from qwen3vl.errors import InputError

MODALITIES = ("text", "image", "video")
"""Columns that a model reads."""
_EMPTY_TEXT = "NULL"
"""What the official scripts put in place of an empty text."""
_COLUMNS = ("id", *MODALITIES)


def read_rows(loader: Any) -> Iterator[dict[str, Any]]:
    """Read the rows of a dataloader.

    Videos are read as files, not decoded: the model samples their frames itself, as the official script does. So
    torchcodec, which mteb decodes videos with, is not needed.

    Args:
        loader: A `DataLoader` of `BatchedInput`.

    Yields:
        The values of a row under `id`, `text`, `image` and `video`, as far as there are such columns.

    Raises:
        InputError: There is no text, image or video.
    """
    for batch in _without_decoding(loader):
        columns = {name: batch[name] for name in _COLUMNS if name in batch}
        if not any(name in columns for name in MODALITIES):
            raise InputError(
                f"a batch has the columns {', '.join(batch)}, and the model reads text, image and video: leave the "
                "task out"
            )
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def to_input(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as an input of `Embedder.embed` and `Reranker.score`.

    Args:
        row: A row as `read_rows` yields it.

    Returns:
        Its text, image and video. A row with none of them has the text that the official scripts put in its place.
    """
    values: dict[str, Any] = {
        "text": row.get("text") or None,
        "image": _to_image(row.get("image")),
        "video": _to_video(row.get("video")),
    }
    present = {name: value for name, value in values.items() if value is not None}
    return present or {"text": _EMPTY_TEXT}


def row_key(row: Mapping[str, Any]) -> str:
    """Return a key that equal rows have in common.

    Args:
        row: A row as `read_rows` yields it.

    Returns:
        Its id; without one a digest of its content.
    """
    if "id" in row:
        return f"id {row['id']}"
    digest = hashlib.blake2b(digest_size=16)
    for name, value in to_input(row).items():
        for part in value if isinstance(value, list) else [value]:
            digest.update(f"{name} {getattr(part, 'shape', getattr(part, 'size', ''))} ".encode())
            digest.update(_to_bytes(part))
    return digest.hexdigest()


def _without_decoding(loader: Any) -> Any:
    """Return a dataloader that reads the columns that the model needs, and videos as files."""
    dataset = loader.dataset
    if not isinstance(dataset, Dataset):  # some tasks have their own kinds, of images that are decoded already
        return loader
    from torch.utils.data import DataLoader  # torch is imported by mteb before it calls a model

    if any(name in dataset.features for name in MODALITIES):
        dataset = dataset.select_columns([name for name in dataset.features if name in _COLUMNS])
    if isinstance(dataset.features.get("video"), Video):
        dataset = dataset.cast_column("video", Video(decode=False))
    return DataLoader(
        dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn, num_workers=loader.num_workers
    )


def _to_image(value: Any) -> Any:
    """Return an image, or a list of them, as the package takes it: tensors of mteb have the channels first."""
    if isinstance(value, (list, tuple)):
        return [_to_image(image) for image in value]
    if value is None or isinstance(value, Image.Image) or not hasattr(value, "__array__"):
        return value
    return _to_pixels(value)


def _to_video(value: Any) -> Any:
    """Return a video: the bytes or the path of a file, or its frames."""
    if isinstance(value, Mapping):
        return value["bytes"] if value.get("bytes") is not None else value["path"]
    if isinstance(value, (list, tuple)):
        return [_to_image(frame) for frame in value]
    if value is None or not hasattr(value, "__array__"):
        return value
    return _to_pixels(value)


def _to_pixels(value: Any) -> NDArray[np.uint8]:
    """Return pixels of an image or frames, (..., height, width, channels), from a tensor or an array."""
    pixels = np.asarray(value)
    if pixels.ndim > 2 and pixels.shape[-3] in (1, 3) and pixels.shape[-1] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, -3, -1)
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if np.issubdtype(pixels.dtype, np.floating):
        if pixels.size and (pixels.min() < 0 or pixels.max() > 1):
            raise InputError(
                f"pixels are between {pixels.min():g} and {pixels.max():g}: a tensor of floats has values from 0 to 1, "
                "and others are of type uint8"
            )
        pixels = np.rint(pixels * 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return value.tobytes() if hasattr(value, "tobytes") else repr(value).encode()
