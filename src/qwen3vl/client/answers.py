"""Decodes the answers of servers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from qwen3vl.client.groups import Group
from qwen3vl.client.items import EncodedItem
from qwen3vl.errors import InputError, ItemError, MediaError, PolicyError, ServerError, query_error
from qwen3vl.results import ItemOutput
from qwen3vl.wire import decode_array

log = logging.getLogger(__name__)

_ERROR_TYPES = {error_type.__name__: error_type for error_type in (InputError, MediaError, PolicyError)}


def decode_outputs(answer: Mapping[str, Any], group: Group) -> list[ItemOutput]:
    """Decode the answer to a request for vectors or scores. What was shrunk or truncated is logged as a warning.

    Args:
        answer: The object in the answer.
        group: The items of the request.

    Returns:
        An output for each item, in their order.

    Raises:
        ServerError: The answer does not fit the request.
    """
    query_names = {} if group.call.query is None else group.call.query.names
    try:
        values = decode_array(answer["values"], answer["shape"])
        errors = {failure["index"]: failure for failure in answer["errors"]}
        notices = {int(index): str(notice) for index, notice in answer["notices"].items()}
        num_tokens = int(answer["num_tokens"])
        outputs = []
        for position, (index, item, value) in enumerate(zip(group.indices, group.items, values, strict=True)):
            if position in errors:
                outputs.append(ItemOutput(index, None, _item_error(index, item, errors[position], query_names)))
                continue
            notice = notices.get(position, "")
            if notice:
                log.warning("item %d (%s): %s", index, item.name, notice)
            # The server counts the tokens of all items together; callers only get their sum as well.
            outputs.append(ItemOutput(index, value, notice=notice, num_tokens=num_tokens))
            num_tokens = 0
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerError(
            f"the server's answer cannot be read ({type(error).__name__}: {error}); use the same version of qwen3vl on "
            "both sides"
        ) from error
    return outputs


def decode_query_error(failure: Mapping[str, Any], query: EncodedItem) -> InputError:
    """Decode the failure of a query.

    Args:
        failure: What the server says of it.
        query: The query.

    Returns:
        The error that an engine in this process raises, with the same cause, for the caller to raise.
    """
    item_error = _item_error(0, query, failure, {})
    error = query_error(item_error.source, item_error.reason)
    error.__cause__ = item_error.__cause__
    return error


def _item_error(index: int, item: EncodedItem, failure: Mapping[str, Any], query_names: Mapping[str, str]) -> ItemError:
    """Return the error of an item, with the names that its media have for the caller."""
    reason, media_name = str(failure["reason"]), {**item.names, **query_names}.get(failure["source"])
    error_type = _ERROR_TYPES.get(failure["type"])
    cause: Exception = ServerError(reason)
    if error_type is not None:
        cause = error_type(reason)
        cause.source = media_name
    item_error = ItemError(index, media_name or item.name, reason)
    item_error.__cause__ = cause
    return item_error
