"""Runs the application in uvicorn until SIGINT or SIGTERM."""

from __future__ import annotations

import logging
import math
import signal
from contextlib import ExitStack
from dataclasses import dataclass, replace
from socket import socket
from typing import TYPE_CHECKING

import uvicorn
from rich.console import Console

from qwen3vl.cli.models import ModelChoice, open_embedder
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.stores import Store, open_store
from qwen3vl_server.app import create_app
from qwen3vl_server.library.opening import ServedStore
from qwen3vl_server.settings import ServerSettings
from qwen3vl_server.sites import is_loopback

if TYPE_CHECKING:  # it imports torch
    from qwen3vl.embedder import Embedder


@dataclass(frozen=True, slots=True)
class ServedModels:
    """Which models are served.

    Attributes:
        embedder: Hub id, folder or `"tiny"`; None for the store's model, or none without a store.
        reranker: Hub id, folder or `"tiny"`; None for no reranker.
        device: As `Embedder` accepts it.
        dtype: As `Embedder` accepts it.
        policy: What references to media may reach.
    """

    embedder: str | None
    reranker: str | None
    device: str
    dtype: str
    policy: MediaPolicy


def run_server(
    models: ServedModels,
    settings: ServerSettings,
    *,
    served_store: ServedStore | None = None,
    host: str,
    port: int,
    console: Console,
) -> None:
    """Load the models and serve them until SIGINT or SIGTERM. Requests that were accepted are answered before the end.

    Args:
        models: The models.
        settings: Keys, names and limits.
        served_store: The store to search and write; None for models only.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        console: Where the address is printed.

    Raises:
        ModelError: A model cannot be found, downloaded or loaded.
        ValueError: No model is named, or a setting is out of range.
        StoreError: The store cannot be opened.
        RecipeError: The store was made with another embedding model.
        OSError: The address cannot be used.
    """
    from qwen3vl.reranker import Reranker

    if models.embedder is None and models.reranker is None and served_store is None:
        raise ValueError("name a model to serve: --embedder MODEL, --reranker MODEL, or both")
    if not settings.api_keys and not is_loopback(host):
        console.print(f"[yellow]everybody who reaches {host} may use the server: --api-key KEY restricts it[/yellow]")
    logging.getLogger("qwen3vl_server").setLevel(logging.INFO)  # one line for each request
    with ExitStack() as stack:
        listening = stack.enter_context(_listen(host, port))  # before minutes of loading, in case it is in use
        if is_loopback(listening.getsockname()[0]):  # the machine's name may be one of the loopback address
            settings = replace(settings, allowed_hosts=(*settings.allowed_hosts, host))
        embedder = reranker = store = None
        policy = models.policy
        if served_store is not None:
            store = open_store(served_store.location, served_store.collection)
            stack.callback(store.close)
            policy = served_store.extend(policy, settings)
        if models.embedder is not None or store is not None:
            embedder = stack.enter_context(_open_embedder(models, policy, store))
        if models.reranker is not None:
            reranker = stack.enter_context(
                Reranker(models.reranker, device=models.device, dtype=models.dtype, policy=policy)
            )
        media = None if served_store is None else served_store.media_folder
        config = uvicorn.Config(
            create_app(embedder=embedder, reranker=reranker, store=store, media=media, settings=settings),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.timeout_s),
        )
        # uvicorn raises the signal again at the end, when it has its former handler; both then end in the same way.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _Server(config, console, has_page=store is not None).run(sockets=[listening])
        except KeyboardInterrupt:
            console.print("stopped")


def _open_embedder(models: ServedModels, policy: MediaPolicy, store: Store | None) -> Embedder:
    """Load the embedding model, with the settings of the store's collection if there is one; otherwise create it."""
    stored = None if store is None else store.recipe()
    embedder = open_embedder(ModelChoice(models.embedder, models.device, models.dtype, policy), stored)
    if store is not None:
        try:
            if stored is None:
                store.create(embedder.recipe)  # a name that the database refuses is an error of the command here
            else:
                embedder.recipe.check(stored, store.name)
        except BaseException:
            embedder.close()
            raise
    return embedder


class _Server(uvicorn.Server):
    """Says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, console: Console, *, has_page: bool) -> None:
        super().__init__(config)
        self._console = console
        self._has_page = has_page

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            url = f"http://{address}:{port}"
            self._console.print(f"serving at {url}", markup=False, highlight=False, soft_wrap=True)
            if self._has_page:
                self._console.print(f"search page: {url}/", markup=False, highlight=False, soft_wrap=True)


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
