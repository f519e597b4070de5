"""The settings of a server."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from qwen3vl.media.policy import UNTRUSTED_POLICY

SERVER_POLICY = replace(UNTRUSTED_POLICY, urls=False)
"""The media policy for models behind a server: clients send bytes, as data URIs. No file of the server and no URL is
opened, and media are decoded in processes of their own."""

_KEY = re.compile(r"[!-~]+")
_HOST = re.compile(r"[\w.-]+|[0-9a-fA-F:]+", re.ASCII)
"""A name, or an address of IPv4 or IPv6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Who may use a server, under which names its models are served, and how much one client may ask for.

    Attributes:
        api_keys: Keys of which a client sends one, as `Authorization: Bearer KEY`. Without any, everybody is served.
        allowed_hosts: Names by which clients reach a server without keys, such as that of a proxy before it; requests
            for other names get status 421. The address of a connection and the names of the loopback address need not
            be among them. Without any, names are checked only on connections to the loopback address.
        embedder_name: Name of the embedding model in requests. None is the hub id, the last part of a folder's path, or
            `"tiny"`.
        reranker_name: Name of the reranker in requests; None is as for `embedder_name`.
        query_instruction: Instruction for inputs that a request calls queries; None is the one for documents.
        document_instruction: Instruction for inputs that a request calls documents; None is the embedding model's own.
        max_body_bytes: Maximum size of a request's body in bytes; larger ones get status 413.
        max_upload_bytes: Maximum size of a form with documents to ingest in bytes; larger ones get status 413.
        max_cached_bytes: Maximum size in bytes of the images, PDF files and videos that are kept after a request of
            `Embedder(URL)` or `Reranker(URL)`, which then need not send them again; 0 keeps none.
        max_items: Maximum number of inputs, documents or pairs of a request; more get status 422.
        max_waiting_bytes: Maximum size in bytes of the bodies of all requests that are being answered; a request that
            would exceed it gets status 429.
        max_waiting_items: Maximum number of items of all requests that are being answered; a request that would exceed
            it gets status 429.
        timeout_s: Maximum duration of a request in seconds, its upload included, and of each mebibyte of documents to
            ingest. A slow upload gets status 408, a slow answer status 422.

    Raises:
        ValueError: A limit is not positive, a limit for all requests is below that for one, a key cannot be sent in a
            header, or a host is no name.

    Example:
        ```python
        settings = ServerSettings(api_keys=("a-long-random-key",), max_items=256)
        ```
    """

    api_keys: Sequence[str] = ()
    allowed_hosts: Sequence[str] = ()
    embedder_name: str | None = None
    reranker_name: str | None = None
    query_instruction: str | None = None
    document_instruction: str | None = None
    max_body_bytes: int = 64 * 2**20
    max_upload_bytes: int = 256 * 2**20
    max_cached_bytes: int = 256 * 2**20
    max_items: int = 2048
    max_waiting_bytes: int = 2**30
    max_waiting_items: int = 16384
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        # A tuple of one is easily written without its comma; each letter would then be a key.
        keys = (self.api_keys,) if isinstance(self.api_keys, str) else tuple(self.api_keys)
        object.__setattr__(self, "api_keys", keys)
        if not all(_KEY.fullmatch(key) for key in keys):
            raise ValueError(
                "ServerSettings.api_keys has a key that is empty, or has spaces or characters beyond ASCII, which not "
                "every client can send; use letters and digits"
            )
        hosts = (self.allowed_hosts,) if isinstance(self.allowed_hosts, str) else tuple(self.allowed_hosts)
        object.__setattr__(self, "allowed_hosts", hosts)
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"ServerSettings.allowed_hosts has {host!r}; give names without scheme and port")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "max_cached_bytes" and value == 0:
                continue
            if isinstance(value, (int, float)) and not 0 < value < math.inf:
                raise ValueError(f"ServerSettings.{field.name} is {value}; it must be more than 0, and finite")
        for one, all_requests in (("max_body_bytes", "max_waiting_bytes"), ("max_items", "max_waiting_items")):
            if getattr(self, one) > getattr(self, all_requests):
                raise ValueError(
                    f"ServerSettings.{all_requests} is {getattr(self, all_requests)}, less than {one}, which is "
                    f"{getattr(self, one)}: requests that are allowed would always be refused; raise {all_requests}"
                )
