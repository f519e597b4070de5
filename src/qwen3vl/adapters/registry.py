"""One `Embedder` or `Reranker` per process for equal settings, for callers that name a model by its settings."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.concurrency.fork_safety import ForkSafeLock, init_in_each_process

if TYPE_CHECKING:  # imported when a model is first used
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

ModelT = TypeVar("ModelT", "Embedder", "Reranker")


class ModelRegistry:
    """Loads models by their settings, each at most once at a time.

    A model stays loaded while anybody holds it. `keep=True` also keeps it until `release` is called, for callers
    that cannot hold it themselves: frameworks that create a new object for every call or task.

    Thread-safe. Threads that ask for a model that is loading wait for it; others do not. A forked process loads such a
    model itself.
    """

    _loading: dict[tuple[str, str], ForkSafeLock]

    def __init__(self) -> None:
        self._embedders: weakref.WeakValueDictionary[str, Embedder] = weakref.WeakValueDictionary()
        self._rerankers: weakref.WeakValueDictionary[str, Reranker] = weakref.WeakValueDictionary()
        self._kept: dict[tuple[str, str], Embedder | Reranker] = {}
        self._lock = ForkSafeLock()
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Forget what was loading: a forked process does not have the threads that would end it."""
        self._loading = {}

    def embedder(self, *, keep: bool = False, **arguments: Any) -> Embedder:
        """Return the `Embedder` with these arguments, loading it if nobody holds it.

        Args:
            keep: Whether to keep it loaded until `release` is called.
            **arguments: Keyword arguments of `Embedder`.

        Returns:
            A loaded model, which other callers may use as well.
        """
        from qwen3vl.embedder import Embedder

        return self._get(self._embedders, Embedder, arguments, keep)

    def reranker(self, *, keep: bool = False, **arguments: Any) -> Reranker:
        """Return the `Reranker` with these arguments, loading it if nobody holds it.

        Args:
            keep: Whether to keep it loaded until `release` is called.
            **arguments: Keyword arguments of `Reranker`.

        Returns:
            A loaded model, which other callers may use as well.
        """
        from qwen3vl.reranker import Reranker

        return self._get(self._rerankers, Reranker, arguments, keep)

    async def aembedder(self, *, keep: bool = False, **arguments: Any) -> Embedder:
        """Return the `Embedder` as `embedder` does, without blocking the event loop.

        Args:
            keep: As for `embedder`.
            **arguments: As for `embedder`.

        Returns:
            As `embedder` returns: at once if it is loaded, otherwise once a thread has loaded it.
        """
        model = self._find(self._embedders, _name("Embedder", arguments), keep)
        return model if model is not None else await run_in_executor(self.embedder, keep=keep, **arguments)

    async def areranker(self, *, keep: bool = False, **arguments: Any) -> Reranker:
        """Return the `Reranker` as `reranker` does, without blocking the event loop.

        Args:
            keep: As for `reranker`.
            **arguments: As for `reranker`.

        Returns:
            As `reranker` returns: at once if it is loaded, otherwise once a thread has loaded it.
        """
        model = self._find(self._rerankers, _name("Reranker", arguments), keep)
        return model if model is not None else await run_in_executor(self.reranker, keep=keep, **arguments)

    def release(self) -> None:
        """Close all models that this registry has handed out and that are still loaded, and free their memory."""
        with self._lock:
            models: list[Embedder | Reranker] = [*self._embedders.values(), *self._rerankers.values()]
            self._kept.clear()
        for model in models:
            model.close()

    def _get(
        self,
        loaded: MutableMapping[str, ModelT],
        load: Callable[..., ModelT],
        arguments: dict[str, Any],
        keep: bool,
    ) -> ModelT:
        name = _name(load.__name__, arguments)
        with self._lock:
            loading = self._loading.setdefault(name, ForkSafeLock())
        with loading:
            model = self._find(loaded, name, keep)
            if model is None:
                model = load(**arguments)
                with self._lock:
                    loaded[name[1]] = model
                    if keep:
                        self._kept[name] = model
            return model

    def _find(self, loaded: MutableMapping[str, ModelT], name: tuple[str, str], keep: bool) -> ModelT | None:
        """Return a model if it is loaded. This waits for no model that is loading."""
        with self._lock:
            model = loaded.get(name[1])
            if model is None or model.closed:
                return None
            if keep:
                self._kept[name] = model
            return model


def _name(class_name: str, arguments: dict[str, Any]) -> tuple[str, str]:
    return class_name, json.dumps(arguments, sort_keys=True, default=repr)


MODELS = ModelRegistry()
"""The registry of this process."""


def release_models() -> None:
    """Close every model that the integrations have loaded in this process, and free their memory.

    The integrations' objects can be used again afterwards; they load their model anew.
    """
    MODELS.release()
