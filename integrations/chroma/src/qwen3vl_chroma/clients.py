"""Opening Chroma's clients: with a limit on the time of requests, and in folders that are new, read-only or damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import chromadb
import httpx
from chromadb.api import ClientAPI
from chromadb.api.client import Client
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.auth import UserIdentity
from chromadb.config import Settings

from qwen3vl.errors import StoreError
from qwen3vl.stores import Retry
from qwen3vl.stores.failures import transport_failure
from qwen3vl.stores.folders import check_folder, is_read_only, open_linked

logger = logging.getLogger(__name__)
API_KEY_VARIABLE = "CHROMA_API_KEY"
"""Environment variable with the key of servers, which Chroma's own `CloudClient` reads too."""
TIMEOUT_SETTING = "timeout_s of the store"
_DATABASE = "chroma.sqlite3"
_INDEX_FILE = "header.bin"
"""A file of the folders, beside the database, that have the vector index of a collection."""
_RETRY = Retry(attempts=8, initial_delay_s=0.1, max_delay_s=2.0)
"""For processes that create a folder's tables at the same time."""


def open_server(url: str, timeout_s: float) -> ClientAPI:
    """Open a client of a server, with the key in the environment variable CHROMA_API_KEY if there is one.

    Args:
        url: The server's http(s) URL; it may have a path, below which a proxy has the server.
        timeout_s: Seconds after which a request fails: limits connecting, and each read and write.

    Returns:
        The client.

    Raises:
        StoreError: The server does not answer.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    settings = Settings(
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
        # Chroma takes a URL here too, the only way to a path, which it encodes itself. It puts its own path after it.
        chroma_server_host=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}",
        chroma_server_http_port=parts.port or (443 if secure else 80),
        chroma_server_ssl_enabled=secure,
        **_authentication(),
    )
    try:
        return _ClientWithTimeout(timeout_s, settings=settings)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, httpx.TimeoutException):
            cause = cause.__context__  # Chroma raises a ValueError without a cause
        failure = transport_failure(cause, TIMEOUT_SETTING) if isinstance(cause, httpx.TimeoutException) else None
        if failure is None:
            raise
        raise StoreError(f"the store {url} cannot be opened: {failure.reason}", transient=True) from error


def _authentication() -> dict[str, Any]:
    """Return settings that send the key in the header `X-Chroma-Token`."""
    if not (key := os.environ.get(API_KEY_VARIABLE)):
        return {}
    return {
        "chroma_client_auth_provider": "chromadb.auth.token_authn.TokenAuthClientProvider",
        "chroma_client_auth_credentials": key,
        "chroma_auth_token_transport_header": "X-Chroma-Token",
    }


class _ClientWithTimeout(Client):
    """What `chromadb.HttpClient` returns, with a timeout: Chroma has no setting for it, and its constructor requests.

    Args:
        timeout_s: Seconds.
        settings: Chroma's settings.
    """

    def __init__(self, timeout_s: float, *, settings: Settings) -> None:
        self._timeout_s = timeout_s
        super().__init__(settings=settings)

    def get_user_identity(self) -> UserIdentity:
        """Set the timeout; this is the first request of Chroma's constructor."""
        set_timeout(self, self._timeout_s)
        return super().get_user_identity()


def set_timeout(client: Any, timeout_s: float) -> None:
    """Set the timeout of a blocking client of a server, if it has none.

    Args:
        client: Any Chroma client.
        timeout_s: Seconds.
    """
    session = getattr(getattr(client, "_server", None), "_session", None)
    if isinstance(session, httpx.Client) and session.timeout == httpx.Timeout(None):
        session.timeout = httpx.Timeout(timeout_s)


def open_folder(folder: str) -> tuple[ClientAPI, bool]:
    """Open an embedded Chroma; create it if it does not exist.

    Args:
        folder: The folder.

    Returns:
        The client, and whether the folder can only be read.

    Raises:
        StoreError: The database file is empty or damaged; the message says what to do.
    """
    path = Path(folder)
    check_folder(path)
    _check_database(path)
    if is_read_only(path):
        return _open_read_only(path), True
    return _open(path, path), False


def _open(path: Path, shown: Path) -> ClientAPI:
    for failures in range(_RETRY.attempts):
        try:
            return chromadb.PersistentClient(str(path))
        except Exception as error:
            # Chroma keeps the system that failed to start, and would use it the next time.
            getattr(SharedSystemClient, "_identifier_to_system", {}).pop(str(path), None)
            reason = str(error)
            if any(words in reason for words in ("not a database", "malformed", "no such table", "no such column")):
                raise StoreError(
                    f"{shown / _DATABASE} is damaged ({reason}): restore the folder from a backup, save what is "
                    f"readable with `sqlite3 {_DATABASE} .recover | sqlite3 recovered.sqlite3`, or move the folder "
                    "away and index the documents again"
                ) from error
            created_meanwhile = any(words in reason for words in ("already exists", "is locked", "UNIQUE constraint"))
            if not created_meanwhile or failures + 1 == _RETRY.attempts:
                raise
            time.sleep(_RETRY.delay_s(failures))
    raise AssertionError("Retry.attempts is at least 1")


def _check_database(path: Path) -> None:
    """Raise `StoreError` if the database is empty, which SQLite takes for a new one, while there are indexes."""
    database = path / _DATABASE
    if database.exists() and database.stat().st_size > 1:
        return
    indexes = sorted(file.parent.name for file in path.glob(f"*/{_INDEX_FILE}"))
    if indexes:
        raise StoreError(
            f"{database} is missing or empty, and with it the ids, texts and metadata of all points (their vectors are "
            f"still in {', '.join(indexes)}, but do not suffice): restore the file from a backup, or move {path} away "
            "and index the documents again"
        )


def _open_read_only(path: Path) -> ClientAPI:
    """Open a folder that cannot be written through a temporary one, with a copy of the database.

    Chroma writes to its database when it opens it. The indexes are read where they are.
    """
    database = path / _DATABASE
    if not database.exists():
        raise StoreError(f"there is no store in {path}, and none can be created: this process cannot write the folder")
    logger.info("%s cannot be written: copying %s (%d bytes) to search it", path, database, database.stat().st_size)
    without = (_DATABASE, f"{_DATABASE}-journal", f"{_DATABASE}-wal", f"{_DATABASE}-shm")

    def open_copy(links: Path) -> ClientAPI:
        try:
            with (
                closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(links / _DATABASE)) as copy,
            ):
                source.backup(copy)
        except sqlite3.Error as error:
            raise StoreError(
                f"{path} cannot be written by this process, and {database} cannot be copied to be searched ({error}): "
                "open the store once where it can be written, or free space for temporary files"
            ) from error
        return _open(links, path)

    return open_linked(path, open_copy, without=without)
