"""The store of `qwen3vl serve --store`: where it is, and which files its documents may show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qwen3vl.media.policy import MediaPolicy
from qwen3vl.stores import parse_location
from qwen3vl_server.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class ServedStore:
    """Which store is served.

    Attributes:
        location: As `open_store` accepts it.
        collection: The collection in the store.
        folders: Folders whose files may be shown and reranked.
        media: Folder for the files of uploaded documents. None is a folder beside that of an embedded store; uploads to
            other stores are refused then.
    """

    location: str
    collection: str
    folders: Sequence[Path] = ()
    media: Path | None = None

    @property
    def media_folder(self) -> Path | None:
        """The folder for the files of uploaded documents; None if uploads are refused."""
        address = parse_location(self.location)[1]
        if self.media is not None or address == ":memory:" or "://" in address:
            return self.media
        folder = Path(address)
        if folder.name in ("", ".."):  # such as --store .
            folder = folder.resolve()
        return folder.with_name(f"{folder.name}.media")

    def extend(self, policy: MediaPolicy, settings: ServerSettings) -> MediaPolicy:
        """Return a policy that allows the files that documents of the store may show.

        Args:
            policy: The policy for what clients send.
            settings: Limits uploads.

        Returns:
            The policy. Clients still cannot name a file: the server accepts no paths.
        """
        media = () if self.media_folder is None else (self.media_folder,)
        max_bytes = max(policy.max_bytes, settings.max_upload_bytes)
        return replace(policy, folders=(*self.folders, *media), max_bytes=max_bytes)
