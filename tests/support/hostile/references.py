"""References that must not be opened or fetched, each with words of the reason for which it is refused."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from tests.support.hostile.png import png
from tests.support.http_server import Server


def data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


HOSTILE: list[tuple[Any, str]] = [
    ("file:///etc/passwd", "outside the folders"),
    ("/etc/passwd", "outside the folders"),
    ("~/.ssh/id_rsa", "outside the folders"),
    ("../../etc/passwd", "outside the folders"),
    ("{allowed}/../../../etc/passwd", "outside the folders"),
    ("{allowed}/link.png", "outside the folders"),
    ("{allowed}/a\0b.png", "no path to a file"),
    ("{allowed}/loop.png", "symbolic links form a loop"),
    ("{allowed}/pipe.png", "not a file"),
    ("file://elsewhere/share/a.png", "not a host"),
    ("http://127.0.0.1:{port}/a.png", "127.0.0.1, which is not a public address"),
    ("http://localhost:{port}/a.png", "which is not a public address"),
    ("http://[::ffff:127.0.0.1]:{port}/a.png", "127.0.0.1, which is not a public address"),
    ("http://169.254.169.254/latest/meta-data", "169.254.169.254, which is not a public address"),
    ("ftp://example.com/a.png", "URLs of this kind are not opened"),
    ("concat:/etc/passwd|/etc/hosts", "outside the folders"),
    (data_uri(png(60_000, 60_000)), "too large to be opened safely"),
    (data_uri(png(12_000, 12_000, 400)), "12000 x 12000 pixels and the media policy allows"),
    ("data:image/png;base64,AAAA", "not an image that can be read"),
    ("data:text/html,<svg onload=1>", "not an image that can be read"),
    ("{allowed}/header.png", "too large to be opened safely"),
    (7, "type int"),
    ({"url": "http://127.0.0.1"}, "type dict"),
    (["a.png"], "type list"),
    (b"\x89PNG", "type bytes"),
    (Path("/etc/passwd"), "type PosixPath"),
    (True, "type bool"),
]
"""`{allowed}` stands for the allowed folder and `{port}` for the port of a server on this machine."""


def prepare(folder: Path) -> Path:
    """Write the files that some of the references name into the allowed folder."""
    (folder / "link.png").symlink_to("/etc/passwd")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "header.png").write_bytes(png(60_000, 60_000))
    return folder


def reference(number: int, allowed: Path, server: Server) -> tuple[Any, str]:
    """Return a reference with the folder and the port filled in, and words of the reason for its refusal."""
    value, reason = HOSTILE[number]
    if isinstance(value, str):
        value = value.replace("{allowed}", str(allowed)).replace("{port}", str(server.port))
    return value, reason
