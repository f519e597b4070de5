"""What becomes of a file that yields no document: it failed, or it is of a type that is not loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from qwen3vl.documents import LoadFailure
from qwen3vl.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of a type that is not loaded, or a link to a folder, which is not followed.

    Attributes:
        source: The file.
        suffix: Its suffix in lower case, `"no suffix"` or `"link to a folder"`.
    """

    source: str
    suffix: str


def attempt(
    source: str, load: Callable[P, Iterable[T]], *args: P.args, **kwargs: P.kwargs
) -> Iterator[T | LoadFailure]:
    """Yield what a function yields; if it raises an exception of any type, yield that failure of the source.

    This is the only place in which an exception becomes a `LoadFailure`: no file can end a run.

    Args:
        source: The file, folder or pattern.
        load: Loads it.
        *args: Arguments of the function.
        **kwargs: Keyword arguments of the function.

    Yields:
        The items of the function, and perhaps a failure as the last one.
    """
    try:
        yield from load(*args, **kwargs)
    except Exception as error:  # decoders raise nearly anything on broken files
        yield LoadFailure(storable_name(source), _reason(source, error))


def storable_name(path: str) -> str:
    r"""Return a path as valid Unicode: bytes of a file name that are not UTF-8 are escaped as `\udce9` and the like.

    Args:
        path: A path, perhaps with surrogates for such bytes.

    Returns:
        The path itself if it is valid.
    """
    return path.encode("utf-8", "backslashreplace").decode()


def _reason(source: str, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror or error}; check its permissions"
    log.warning("unexpected error while loading %s", source, exc_info=error)
    return (
        f"it cannot be loaded: {type(error).__name__}: {error}; check the file with another program, and report an "
        "error of qwen3vl if it is intact"
    )
