"""Errors for the methods of a `QdrantClient` that a folder does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from qdrant_client.client_base import QdrantBase

_Backend = TypeVar("_Backend", bound=type[QdrantBase])


def refuse_missing(backend: _Backend) -> _Backend:
    """Replace every method of `QdrantBase` that a class has not overridden by one that raises an error with its name.

    Args:
        backend: The class, which is changed.

    Returns:
        The same class.
    """
    for name, method in vars(QdrantBase).items():
        if not name.startswith("_") and getattr(backend, name) is method:
            setattr(backend, name, _refusal(name))
    return backend


def _refusal(name: str) -> Callable[..., NoReturn]:
    def method(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"a folder does not support {name}(): use a Qdrant server, QdrantClient(url=...)")

    method.__name__ = name
    return method
