"""Aliases that keep renamed public names working, each with a `DeprecationWarning`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def deprecated_alias(owner: str, old: str, new: str) -> property:
    """Return a read-only property that reads the attribute `new` and warns that `old` is deprecated.

    Args:
        owner: The class's name, for the warning.
        old: The attribute's former name.
        new: The attribute's present name.

    Returns:
        A property to assign to the former name in the class body.
    """

    def read(self: Any) -> Any:
        warnings.warn(f"{owner}.{old} is deprecated; use {owner}.{new}", DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(read, doc=f"Deprecated alias of `{new}`.")


def renamed_arguments(**renames: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that accepts former names of keyword arguments, with a `DeprecationWarning`.

    Args:
        **renames: The present name of each former name.

    Returns:
        A decorator for a function or method.

    Example:
        ```python
        @renamed_arguments(one_per="group_by")
        def search(*, group_by: str | None = None) -> None: ...
        ```
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for old, new in renames.items():
                if old in kwargs:
                    # `dataclasses.replace` passes all present fields as well: there the former name wins.
                    if new in kwargs and function.__name__ != "__init__":
                        raise TypeError(f"{function.__qualname__}() got both {new!r} and its former name {old!r}")
                    warnings.warn(f"the argument {old!r} is deprecated; use {new!r}", DeprecationWarning, stacklevel=2)
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
