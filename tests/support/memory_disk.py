"""Temporary folders in memory: on a disk, tests of embedded stores wait for it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

MOUNT = Path("/dev/shm")
"""Linux's file system in memory."""
MIN_FREE_BYTES = 6 * 2**30
"""More than a run of all tests has there at a time."""


def use() -> None:
    """Let pytest make its folders there if there is room and programs may be run, unless its variable names a place."""
    if (
        sys.platform == "linux"
        and os.access(MOUNT, os.W_OK)
        and not os.statvfs(MOUNT).f_flag & os.ST_NOEXEC
        and shutil.disk_usage(MOUNT).free >= MIN_FREE_BYTES
    ):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MOUNT))
