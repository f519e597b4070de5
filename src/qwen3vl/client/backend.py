"""What both remote backends have in common: servers of one model, their recipe and limits, and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qwen3vl.client.chunks import arun_chunks, run_chunks
from qwen3vl.client.groups import Call
from qwen3vl.client.items import EncodingRules
from qwen3vl.client.requests import RequestSender
from qwen3vl.client.transport import Transport
from qwen3vl.errors import ModelError, RecipeError, ServerError
from qwen3vl.inputs import Input
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput
from qwen3vl.settings import SERVER_SETTINGS, ClientSettings

if TYPE_CHECKING:
    from qwen3vl.engine import Engine

Kind = Literal["embedder", "reranker"]
_NOUNS: dict[Kind, str] = {"embedder": "embedding model", "reranker": "reranker"}
_ADAPTER_OPTIONS: dict[Kind, str] = {"embedder": "--adapter", "reranker": "--reranker-adapter"}
_ANSWER_MARGIN_S = 10.0
"""Seconds beyond a server's own time limit after which it is taken for dead."""
_HEADER_BYTES = 64 * 2**10
"""Bytes of a request that are left for what is not an item."""


class RemoteBackend:
    """Asks servers for the values of items.

    Args:
        urls: The servers.
        settings: Key, time limits, media policy.
        arguments: What the caller has set; `SERVER_SETTINGS` among it are compared with the servers', and `adapter` is
            the name of one that they serve.
        kind: Which of their models is used.

    Attributes:
        recipe: Everything that decides the servers' values.

    Raises:
        ModelError: A server has no such model or adapter.
        RecipeError: The servers have different models or settings.
        ServerError: No server can be reached, or one refuses the key.
        ValueError: A setting is not that of the servers.
    """

    def __init__(self, urls: Sequence[str], settings: ClientSettings, arguments: Mapping[str, Any], kind: Kind) -> None:
        self._settings = settings
        adapter = arguments.get("adapter")
        self._model_fields = {} if adapter is None else {"model": str(adapter)}
        self._transport = Transport(urls, settings)
        try:
            described = self._transport.submit(self._transport.describe_servers, "/qwen3vl/models").result()
            recipes = {url: _read_recipe(url, answer, kind, adapter) for url, answer in described.items()}
            self.recipe = _common_recipe(recipes)
            _check_settings(", ".join(urls), self.recipe, arguments)
            limits = [_read_limits(url, answer) for url, answer in described.items()]
        except BaseException:
            self._transport.close()
            raise
        self._served_recipe = self.recipe
        self._transport.answer_timeout_s = max(limit.timeout_s for limit in limits) + _ANSWER_MARGIN_S
        self._sender = RequestSender(
            self._transport,
            EncodingRules(
                policy=settings.policy,
                max_frames=self.recipe.max_frames,
                exif=self.recipe.exif,
                max_content_bytes=min(limit.max_media_bytes for limit in limits),
                max_item_bytes=min(limit.max_body_bytes for limit in limits) - _HEADER_BYTES,
            ),
        )
        self._max_items = min(limit.max_items for limit in limits)

    @property
    def policy(self) -> MediaPolicy:
        """Which files and addresses media references may reach."""
        return self._settings.policy

    @property
    def engine(self) -> Engine:
        """There is none."""
        raise AttributeError(
            f"the engine is in the server, {', '.join(self._transport.urls)}; its /metrics has the statistics"
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._transport.closed

    def close(self) -> None:
        """Cancel running calls and close the connections."""
        self._transport.close()

    def _run(self, call: Call, inputs: Iterator[Input]) -> Generator[ItemOutput]:
        return run_chunks(self._transport, inputs, partial(self._sender.send_chunk, call), self._max_items)

    def _arun(self, call: Call, inputs: Iterator[Input]) -> AsyncGenerator[ItemOutput]:
        return arun_chunks(self._transport, inputs, partial(self._sender.send_chunk, call), self._max_items)


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a server takes in one request."""

    max_items: int
    max_body_bytes: int
    max_media_bytes: int
    timeout_s: float


def _read_recipe(url: str, answer: Mapping[str, Any], kind: Kind, adapter: str | Path | None) -> Recipe:
    if kind not in answer:
        raise ModelError(f"{url} has no {_NOUNS[kind]}; start it with `qwen3vl serve --{kind} MODEL`")
    try:
        base = answer[kind]
        if adapter is None:
            return Recipe.from_dict(base["recipe"])
        name, adapters = str(adapter), answer.get("adapters", {}).get(kind, {})
        if name in adapters:
            return replace(Recipe.from_dict(adapters[name]["recipe"]), model=base["name"], adapter=name)
        served = f"it serves {', '.join(map(repr, adapters))}" if adapters else "it serves none"
        raise ModelError(
            f"{url} has no adapter {name!r} of its {_NOUNS[kind]}, {served}: with the URL of a server, adapter is a "
            f"name that `qwen3vl serve {_ADAPTER_OPTIONS[kind]} NAME=LOCATION` has set"
        )
    except (KeyError, TypeError, AttributeError, RecipeError) as error:
        raise _other_version(url, error) from error


def _read_limits(url: str, answer: Mapping[str, Any]) -> _Limits:
    try:
        return _Limits(**{field.name: answer["limits"][field.name] for field in fields(_Limits)})
    except (KeyError, TypeError) as error:
        raise _other_version(url, error) from error


def _other_version(url: str, error: Exception) -> ServerError:
    return ServerError(
        f"{url} does not describe its models as this version of qwen3vl does ({type(error).__name__}: {error}); use "
        "the same version on both sides"
    )


def _common_recipe(recipes: Mapping[str, Recipe]) -> Recipe:
    """Return the recipe of servers by their URLs; raise `RecipeError` if they have different ones."""
    first_url, first = next(iter(recipes.items()))
    for url, recipe in recipes.items():
        if recipe.digest != first.digest:
            raise RecipeError(
                f"{url} has another model or other settings than {first_url}: {first.describe_differences(recipe)}. "
                "The servers of one object must have the same ones"
            )
    return first


def _check_settings(urls: str, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
    for name in SERVER_SETTINGS:
        value, own = arguments.get(name), getattr(recipe, name)
        if value is not None and value != own:
            raise ValueError(
                f"{name} is {value}, and that of the server is {own} ({urls}); leave it out, or change the server"
            )
