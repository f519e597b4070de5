"""Requests to an engine. Their outputs are `ItemOutput`s, whose values are hidden states."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from qwen3vl.inputs import Item, as_item
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import ControlToken, TextPart
from qwen3vl.results import ItemOutput, failed_output

PromptParts = Sequence[ControlToken | TextPart | UnsizedMedia]


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to run.

    Attributes:
        index: The item's index in the caller's input.
        source: What the item is, for errors: a path, a URL, or the beginning of its text.
        to_prompt: Returns the parts of the prompt. It is called on a thread of the engine; it may read headers of media
            and raise `InputError`.
        has_media: Whether it reads headers of media, which may take long; texts have threads of their own.
    """

    index: int
    source: str
    to_prompt: Callable[[], PromptParts]
    has_media: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class UnparsedRequest:
    """A request whose input is parsed, and its media copied, when it is submitted.

    Attributes:
        index: The item's index in the caller's input.
        value: The input, as `Embedder.embed` accepts it.
        to_prompt: Returns the parts of an item's prompt; see `Request.to_prompt`.
    """

    index: int
    value: Any
    to_prompt: Callable[[Item], PromptParts]

    def parse(self) -> Request:
        """Return the request. That of an input that cannot be parsed fails when it is run, like all errors of items."""
        try:
            item = as_item(self.value)
        except Exception as error:  # objects of the caller may raise anything
            return Request(self.index, reprlib.repr(self.value), partial(_raise, error))
        to_prompt = partial(self.to_prompt, item)
        return Request(self.index, item.name, to_prompt, has_media=bool(item.images or item.videos))


def _raise(error: Exception) -> PromptParts:
    raise error


def failed_request(request: Request, error: Exception, source: str | None = None) -> ItemOutput:
    """Create the output of a request that failed.

    Args:
        request: The request.
        error: What was raised. Its tracebacks are removed.
        source: The image or video that caused the error; None if it is not about one.

    Returns:
        An output with an error.
    """
    return failed_output(request.index, source or request.source, error)


def as_exception(error: BaseException) -> Exception:
    """Return an error as an `Exception`, which is handled as the error of one request.

    Args:
        error: The error, perhaps one such as `SystemExit`.

    Returns:
        The same error, or a `RuntimeError` that names its type.
    """
    return error if isinstance(error, Exception) else RuntimeError(f"it ended with {type(error).__name__}")
