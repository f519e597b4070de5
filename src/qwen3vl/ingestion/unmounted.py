"""Files that may be missing only because their disk is not mounted: nothing is left in the folder where it was."""

from __future__ import annotations

import errno
import os
from pathlib import PurePath

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP})


class EmptyFolders:
    """Finds the empty folder above a missing file. Each folder is looked at once."""

    def __init__(self) -> None:
        self._states: dict[PurePath, bool | None] = {}

    def above(self, source: str) -> str | None:
        """Return the nearest existing folder above a source, if nothing is in it or it cannot be read.

        Args:
            source: The source of a document. Only absolute paths have such a folder.

        Returns:
            The folder; the root of a path, such as a drive of Windows, if that does not exist either. None for a folder
            with anything in it: its disk is mounted.
        """
        path = PurePath(source)
        if not path.is_absolute():
            return None
        for folder in path.parents:
            if folder not in self._states:
                self._states[folder] = _is_empty(folder)
            is_empty = self._states[folder]
            if is_empty is not None:
                return str(folder) if is_empty else None
        return path.anchor


def _is_empty(folder: PurePath) -> bool | None:
    """Return whether nothing is known to be in a folder; None if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return not any(entries)
    except ValueError:  # a null character
        return None
    except OSError as error:  # others are those of folders that are not permitted, and of servers that do not answer
        return None if error.errno in _NOT_THERE else True
