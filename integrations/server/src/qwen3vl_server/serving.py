"""Runs the application in uvicorn until SIGINT or SIGTERM."""

from __future__ import annotations

import ipaddress
import logging
import math
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from socket import socket

import uvicorn
from rich.console import Console

from qwen3vl.media.policy import MediaPolicy
from qwen3vl.settings import EngineArguments
from qwen3vl_server.app import create_app
from qwen3vl_server.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class ServedModels:
    """Which models are served.

    Attributes:
        embedder: Hub id, folder or `"tiny"`; None for no embedding model.
        reranker: As for `embedder`.
        device: As `Embedder` accepts it.
        dtype: As `Embedder` accepts it.
        policy: What references to media may reach.
    """

    embedder: str | None
    reranker: str | None
    device: str
    dtype: str
    policy: MediaPolicy


def run_server(models: ServedModels, settings: ServerSettings, *, host: str, port: int, console: Console) -> None:
    """Load the models and serve them until SIGINT or SIGTERM. Requests that were accepted are answered before the end.

    Args:
        models: The models.
        settings: Keys, names and limits.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        console: Where the address is printed.

    Raises:
        ModelError: A model cannot be found, downloaded or loaded.
        ValueError: No model is named, or a setting is out of range.
        OSError: The address cannot be used.
    """
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

    if models.embedder is None and models.reranker is None:
        raise ValueError("name a model to serve: --embedder MODEL, --reranker MODEL, or both")
    if not settings.api_keys and not _is_loopback(host):
        console.print(f"[yellow]everybody who reaches {host} may use the server: --api-key KEY restricts it[/yellow]")
    logging.getLogger("qwen3vl_server").setLevel(logging.INFO)  # one line for each request
    with ExitStack() as stack:
        listening = stack.enter_context(_listen(host, port))  # before minutes of loading, in case it is in use
        options: EngineArguments = {"device": models.device, "dtype": models.dtype, "policy": models.policy}
        embedder = reranker = None
        if models.embedder is not None:
            embedder = stack.enter_context(Embedder(models.embedder, **options))
        if models.reranker is not None:
            reranker = stack.enter_context(Reranker(models.reranker, **options))
        config = uvicorn.Config(
            create_app(embedder=embedder, reranker=reranker, settings=settings),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.timeout_s),
        )
        # uvicorn raises the signal again at the end, when it has its former handler; both then end in the same way.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _Server(config, console).run(sockets=[listening])
        except KeyboardInterrupt:
            console.print("stopped")


class _Server(uvicorn.Server):
    """Says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, console: Console) -> None:
        super().__init__(config)
        self._console = console

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            self._console.print(f"serving at http://{address}:{port}", markup=False, highlight=False, soft_wrap=True)


def _listen(host: str, port: int) -> socket:
    from socket import AF_INET, AF_INET6, SO_REUSEADDR, SOL_SOCKET

    listening = socket(AF_INET6 if ":" in host else AF_INET)
    listening.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on {host}, port {port}: {error}; choose others with --host and --port") from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
