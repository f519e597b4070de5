"""Runs the application in uvicorn until SIGINT or SIGTERM."""

from __future__ import annotations

import logging
import math
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from socket import gethostname, socket
from typing import TYPE_CHECKING

import uvicorn
from rich.console import Console

from qwen3vl.cli.models import ModelChoice, open_embedder
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.stores import open_store
from qwen3vl_server.app import create_app
from qwen3vl_server.http_protocol import http_protocol
from qwen3vl_server.library.opening import ServedStore
from qwen3vl_server.settings import ServerSettings
from qwen3vl_server.sites import is_loopback, is_unspecified

if TYPE_CHECKING:
    from qwen3vl.embedder import Embedder  # it imports torch
    from qwen3vl.reranker import Reranker
    from qwen3vl.stores import Store

_ROOT_PATH = re.compile(r"(/[\w.~-]+)*/?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is reached.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        root_path: Path below which a proxy has the server, such as `/models`; empty without one. The proxy removes it
            from requests, and the URLs that the server returns begin with it.

    Raises:
        ValueError: The path is none.
    """

    host: str
    port: int
    root_path: str = ""

    def __post_init__(self) -> None:
        if not _ROOT_PATH.fullmatch(self.root_path):
            raise ValueError(
                f"--root-path is {self.root_path!r}; give the path alone, as /models: a slash, then letters, digits "
                "and any of -._~"
            )
        object.__setattr__(self, "root_path", self.root_path.rstrip("/"))


@dataclass(frozen=True, slots=True)
class ServedModels:
    """Which models are served.

    Attributes:
        embedder: Hub id, folder or `"tiny"`; None for the store's model, or none without a store.
        reranker: Hub id, folder or `"tiny"`; None for no reranker.
        device: As `Embedder` accepts it.
        dtype: As `Embedder` accepts it.
        policy: What references to media may reach.
        adapters: LoRA adapters of the embedding model that are served beside it, by what requests call them.
        reranker_adapters: The same for the reranker.
    """

    embedder: str | None
    reranker: str | None
    device: str
    dtype: str
    policy: MediaPolicy
    adapters: Mapping[str, str] = field(default_factory=dict)
    reranker_adapters: Mapping[str, str] = field(default_factory=dict)


def parse_adapters(options: Sequence[str] | None) -> dict[str, str]:
    """Read the options `--adapter` or `--reranker-adapter`.

    Args:
        options: Each `NAME=LOCATION`.

    Returns:
        The locations by name.

    Raises:
        ValueError: An option has no name or no location, or a name is there twice.
    """
    adapters: dict[str, str] = {}
    for option in options or ():
        name, _, location = option.partition("=")
        if not name or not location:
            raise ValueError(f"{option} names no adapter; write NAME=FOLDER or NAME=HUB_ID, as invoices=./my-adapter")
        if name in adapters:
            raise ValueError(f"two adapters have the name {name}; rename one")
        adapters[name] = location
    return adapters


def run_server(
    models: ServedModels,
    settings: ServerSettings,
    *,
    served_store: ServedStore | None = None,
    address: Address,
    console: Console,
) -> None:
    """Load the models and serve them until SIGINT or SIGTERM. Requests that were accepted are answered before the end.

    Args:
        models: The models.
        settings: Keys, names and limits.
        served_store: The store to search and write; None for models only.
        address: Where it listens.
        console: Where the address is printed.

    Raises:
        ModelError: A model cannot be found, downloaded or loaded.
        ValueError: No model is named, or a setting is out of range.
        StoreError: The store or the folder of uploads cannot be opened.
        RecipeError: The store was made with another embedding model.
        OSError: The address cannot be used.
    """
    if models.embedder is None and models.reranker is None and served_store is None:
        raise ValueError("name a model to serve: --embedder MODEL, --reranker MODEL, or both")
    if models.adapters and models.embedder is None and served_store is None:
        raise ValueError("--adapter needs the model that it belongs to: --embedder MODEL")
    if models.reranker_adapters and models.reranker is None:
        raise ValueError("--reranker-adapter needs the model that it belongs to: --reranker MODEL")
    if not settings.api_keys and not is_loopback(address.host):
        warning = f"everybody who reaches {address.host} may use the server: --api-key KEY restricts it"
        console.print(f"[yellow]{warning}[/yellow]")
    logging.getLogger("qwen3vl_server").setLevel(logging.INFO)  # one line for each request
    with ExitStack() as stack:
        # Before minutes of loading, in case the port is in use.
        listening = stack.enter_context(_listen(address.host, address.port))
        if is_loopback(listening.getsockname()[0]):  # the machine's name may be one of the loopback address
            settings = replace(settings, allowed_hosts=(*settings.allowed_hosts, address.host))
        store, media = None, None
        policy = models.policy
        if served_store is not None:
            store = open_store(served_store.location, served_store.collection)
            stack.callback(store.close)
            media = served_store.open_media(store)
            if media is not None:
                stack.callback(media.close)
            policy = served_store.extend(policy, settings)
        embedders = _open_embedders(models, policy, store, stack)
        rerankers = _open_rerankers(models, policy, stack)
        config = uvicorn.Config(
            create_app(
                embedder=embedders.pop("", None),
                reranker=rerankers.pop("", None),
                embedders=embedders,
                rerankers=rerankers,
                store=store,
                media=media,
                settings=settings,
            ),
            http=http_protocol(),
            log_config=None,
            access_log=False,
            server_header=False,
            root_path=address.root_path,
            timeout_graceful_shutdown=math.ceil(settings.timeout_s),
        )
        # uvicorn raises the signal again at the end, when it has its former handler; both then end in the same way.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _Server(config, console, has_page=store is not None).run(sockets=[listening])
        except KeyboardInterrupt:
            console.print("stopped")


def _open_embedders(
    models: ServedModels, policy: MediaPolicy, store: Store | None, stack: ExitStack
) -> dict[str, Embedder]:
    """Load the embedding models by name; "" is the one for requests without a name, and that of the store."""
    embedders: dict[str, Embedder] = {}
    if models.embedder is None and store is None:
        return embedders
    stored = None if store is None else store.recipe()
    adapters: dict[str, str | None] = {"": None, **models.adapters}
    for name, adapter in adapters.items():
        choice = ModelChoice(models.embedder, models.device, models.dtype, policy, adapter)
        embedders[name] = stack.enter_context(open_embedder(choice, stored))
    if store is not None:
        if stored is None:
            store.create(embedders[""].recipe)  # a name that the database refuses is an error of the command here
        else:
            embedders[""].recipe.check(stored, store.name)
    return embedders


def _open_rerankers(models: ServedModels, policy: MediaPolicy, stack: ExitStack) -> dict[str, Reranker]:
    """Load the rerankers by name; "" is the one for requests without a name."""
    from qwen3vl.reranker import Reranker

    rerankers: dict[str, Reranker] = {}
    if models.reranker is None:
        return rerankers
    adapters: dict[str, str | None] = {"": None, **models.reranker_adapters}
    for name, adapter in adapters.items():
        reranker = Reranker(models.reranker, device=models.device, dtype=models.dtype, policy=policy, adapter=adapter)
        rerankers[name] = stack.enter_context(reranker)
    return rerankers


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
            is_everywhere = is_unspecified(host)
            if is_everywhere:  # no address that clients could use
                host = "::1" if ":" in host else "127.0.0.1"
            address = f"[{host}]" if ":" in host else host
            url = f"http://{address}:{port}"
            self._print(f"serving at {url}")
            if self._has_page:
                self._print(f"search page: {url}/")
            if is_everywhere:
                self._print(
                    f"from other machines: http://{gethostname()}:{port}, or another name or address of this one"
                )

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


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
