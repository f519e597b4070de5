"""The store of `qwen3vl serve --store`: where it is, which files its documents may show, and its folder of uploads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qwen3vl.media.policy import MediaPolicy
from qwen3vl.stores import Store, parse_location
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.media_owner import MediaOwner
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
        folder = _named(address)
        return folder.with_name(f"{folder.name}.media")

    def open_media(self, store: Store) -> MediaFolder | None:
        """Open the folder for the files of uploaded documents.

        Args:
            store: The store, opened.

        Returns:
            The folder; None if uploads are refused.

        Raises:
            StoreError: Another server uses it, it belongs to another store, or it cannot be locked.
            OSError: It cannot be created.
        """
        media = self.media_folder
        if media is None:
            return None
        core = store.core
        return MediaFolder(media, MediaOwner(core.collection, core.database, self._location_from(media.resolve())))

    def _location_from(self, media: Path) -> str:
        """Return where the store is: a URL without a user's name and password, or a path from a folder."""
        address = parse_location(self.location)[1]
        if address == ":memory:":
            return ""
        if "://" in address:
            scheme, _, rest = address.partition("://")
            host, slash, path = rest.partition("/")
            return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}".rstrip("/")
        folder = _named(address)
        # A link by the name of a store may lead to a newer copy some day, which shows the same uploads.
        folder = folder.parent.resolve() / folder.name
        try:
            return Path(os.path.relpath(folder, media)).as_posix()
        except ValueError:  # they are on two drives of Windows
            return folder.as_posix()

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


def _named(address: str) -> Path:
    """Return the path of a store's folder so that it ends with the folder's name."""
    folder = Path(address)
    return folder.resolve() if folder.name in ("", "..") else folder  # such as --store .
