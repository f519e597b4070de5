"""Inputs of `Embedder` and `Reranker` made from the documents of other frameworks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from qwen3vl.errors import InputError
from qwen3vl.inputs import as_item

T = TypeVar("T")


def input_or_error(value: T, to_input: Callable[[T], Any], source: str | None = None) -> Any:
    """Convert a framework's value to an input, or return the `InputError` that the conversion raises.

    `Embedder` and `Reranker` accept an `InputError` as an input: it becomes the `ItemError` of that index, and the
    other inputs of the call are unaffected.

    Args:
        value: A framework's document, node, message or similar.
        to_input: Converts the value to an input of `Embedder.embed`.
        source: Name of the value in the error message; None keeps the name that the error has.

    Returns:
        What `to_input` returns, or the `InputError` that it raised.

    Example:
        ```python
        inputs = [input_or_error(node, node_input, f"node {node.node_id}") for node in nodes]
        batch = embedder.embed(inputs, on_error="collect")
        ```
    """
    try:
        return to_input(value)
    except InputError as error:
        if source is not None:
            error.source = source
        return error


def describe_input(value: Any) -> str:
    """Describe an input in a few words, for events and log messages, without copying its media.

    Args:
        value: An input of `Embedder.embed`, or an `InputError` in its place.

    Returns:
        The names of its media and the beginning of its text; the error's message if it cannot be used.
    """
    try:
        return as_item(value).name
    except InputError as error:
        return str(error)


def describe_inputs(values: Iterable[Any]) -> list[str]:
    """Describe inputs as `describe_input` does. It takes long for many media that are passed as bytes or objects.

    Args:
        values: As for `describe_input`.

    Returns:
        A description of each.
    """
    return [describe_input(value) for value in values]
