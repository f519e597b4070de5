"""The data sets that are drawn for the tests: at least one for each kind of loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.mmeb_v2 import image_data, video_data

WRITERS: Mapping[str, Callable[[Path], None]] = {
    "VOC2007": image_data.write_image_cls,
    **video_data.WRITERS,
}
"""By name of the data set: the function that writes its files below the folder of all data."""
