"""One `Embedder` or `Reranker` per process for equal settings, for callers that name a model by its settings."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # a model imports torch
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

ModelT = TypeVar("ModelT", "Embedder", "Reranker")


class ModelRegistry:
    """Loads models by their settings, each at most once at a time.

    A model stays loaded while anybody holds it. `keep=True` also keeps it until `release` is called, for callers
    that cannot hold it themselves: frameworks that create a new object for every call or task.

    Thread-safe. Threads that ask for a model that is loading wait for it; others do not.
    """

    def __init__(self) -> None:
        self._embedders: weakref.WeakValueDictionary[str, Embedder] = weakref.WeakValueDictionary()
        self._rerankers: weakref.WeakValueDictionary[str, Reranker] = weakref.WeakValueDictionary()
        self._kept: dict[tuple[str, str], Embedder | Reranker] = {}
        self._loading: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

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
        key = json.dumps(arguments, sort_keys=True, default=repr)
        name = (load.__name__, key)
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            model = loaded.get(key)
            if model is None or model.closed:
                model = load(**arguments)
            with self._lock:
                loaded[key] = model
                if keep:
                    self._kept[name] = model
            return model


MODELS = ModelRegistry()
"""The registry of this process."""


def release_models() -> None:
    """Close every model that the integrations have loaded in this process, and free their memory.

    The integrations' objects can be used again afterwards; they load their model anew.
    """
    MODELS.release()
