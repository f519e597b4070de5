"""The folder of uploads of a collection in tests that start no server."""

from __future__ import annotations

from pathlib import Path

from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.media_owner import MediaOwner


def open_media_folder(path: Path, collection: str = "qwen3vl", location: str = "") -> MediaFolder:
    return MediaFolder(path, MediaOwner(collection, "Qdrant", location))
