"""Running Python where a folder cannot be written, also as root, for whom permissions mean nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_MOUNT = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'


def run_with_read_only_folder(folder: Path, code: str) -> str:
    """Run code in a process that cannot write a folder, whose path is its first argument; return what it prints."""
    command = [sys.executable, "-c", code, str(folder)]
    if os.geteuid() == 0:
        _skip_without_mounts()
        return _run(["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(folder), *command])
    entries = [folder, *folder.rglob("*")]
    try:
        for entry in entries:
            entry.chmod(0o555 if entry.is_dir() else 0o444)
        return _run(command)
    finally:
        for entry in entries:
            entry.chmod(0o755 if entry.is_dir() else 0o644)


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def _skip_without_mounts() -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
    ):
        pytest.skip("the tests run as root, who ignores permissions, and cannot mount a folder read-only")
