"""One object for equal settings, for those who name a model by its settings again and again."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

T = TypeVar("T")
MODEL_KWARGS = (
    *("max_length", "min_pixels", "max_pixels", "total_pixels", "fps", "max_frames"),
    *("exif", "batch_tokens", "threads", "vision_cache", "compiled"),
)
"""Arguments of `Embedder` and `Reranker` that adapters have no fields for: what their `model_kwargs` may hold."""
_embedders: weakref.WeakValueDictionary[str, Embedder] = weakref.WeakValueDictionary()
_rerankers: weakref.WeakValueDictionary[str, Reranker] = weakref.WeakValueDictionary()
_loading: dict[tuple[str, str], threading.Lock] = {}
_starting = threading.Lock()


def shared_embedder(**settings: Any) -> Embedder:
    """The `Embedder` of these arguments: the one that somebody holds already, or a new one."""
    from qwen3vl.embedder import Embedder

    return _shared(_embedders, Embedder, settings)


def shared_reranker(**settings: Any) -> Reranker:
    """The `Reranker` of these arguments: the one that somebody holds already, or a new one."""
    from qwen3vl.reranker import Reranker

    return _shared(_rerankers, Reranker, settings)


def check_model_kwargs(model_kwargs: Mapping[str, Any]) -> None:
    """Raises `ValueError` where `model_kwargs` of an adapter has anything but MODEL_KWARGS."""
    if odd := sorted(model_kwargs.keys() - set(MODEL_KWARGS)):
        raise ValueError(f"unknown: {', '.join(odd)}; it may hold {', '.join(MODEL_KWARGS)}, all else is a field")


def _shared(held: MutableMapping[str, T], make: Callable[..., T], settings: dict[str, Any]) -> T:
    key = json.dumps(settings, sort_keys=True, default=repr)
    found = held.get(key)
    if found is not None:
        return found
    with _starting:
        loading = _loading.setdefault((make.__name__, key), threading.Lock())
    # Only those wait who want the same model: others are at work meanwhile.
    with loading:
        found = held.get(key)
        if found is None:
            found = held[key] = make(**settings)
        return found
