"""Parsing of inputs for event loops: what copies or decodes media has a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from os import PathLike
from typing import Any, TypeVar

from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.errors import InputError
from qwen3vl.inputs.items import Item

T = TypeVar("T")

_copies = ForkSafeThreadPool(1, "qwen3vl-copies")
"""One thread for the process, since a Pillow image must not be decoded by two: callers may pass it several times."""


async def aparse(parse: Callable[[], T], *values: Any) -> T:
    """Parse inputs without blocking the event loop.

    Args:
        parse: Parses the inputs. It is called on a thread, unless nothing has to be copied.
        *values: The inputs.

    Returns:
        What `parse` returns.
    """
    if all(map(is_cheap, values)):
        return parse()
    return await asyncio.wrap_future(_copies.submit(parse))


def is_cheap(value: Any) -> bool:
    """Return whether `as_item` certainly copies and decodes no media of a value: it then takes microseconds.

    Args:
        value: Any object.

    Returns:
        True for texts, paths, bytes, and what is parsed already.
    """
    if isinstance(value, dict):
        return not {"image", "video"} & dict.keys(value)
    return isinstance(value, (str, bytes, PathLike, Item, InputError))
