"""The failure of one item of a stream: its name, its source and the reason. The item may be any object of a caller."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import Qwen3VLError, StoreError
from qwen3vl.ingestion.report import IngestError, Report
from qwen3vl.inputs import type_name

log = logging.getLogger(__name__)


def name_of(item: Any) -> str:
    """Return the name of an item for a report.

    Args:
        item: An item of a caller's stream.

    Returns:
        Source and locator; the type's name for an object that is no document. It is valid Unicode.
    """
    try:
        name = item.name if isinstance(item, (Document, LoadFailure)) else f"an object of type {type_name(item)}"
        return str(name).encode("utf-8", "backslashreplace").decode()
    except Exception:  # fields of wrong types
        return f"an unreadable object of type {type_name(item)}"


def source_of(item: Any) -> str | None:
    """Return the source of an item.

    Args:
        item: An item of a caller's stream.

    Returns:
        The source; None if it has none that is known.
    """
    try:
        source = item.source
    except Exception:  # no document, or a property that fails
        return None
    return source if isinstance(source, str) else None


def describe_error(error: Exception) -> str:
    """Return the reason of a failure, and log an error that this package did not raise with its traceback.

    Args:
        error: What was raised while an item was processed.

    Returns:
        The message, with the type's name if the error was unexpected.
    """
    if isinstance(error, Qwen3VLError):
        return str(error)
    log.warning("unexpected error in an item of an ingestion", exc_info=error)
    return f"{type(error).__name__}: {error}"


def reraise(error: BaseException, report: Report) -> NoReturn:
    """Raise the error that ended a run: a `StoreError` as an `IngestError`, which has the report.

    Args:
        error: The error.
        report: What was done before.
    """
    if isinstance(error, StoreError):
        raise IngestError(
            f"{error}. The ingestion stopped after {report.added} points, which are written; the next run goes on from "
            "there",
            report,
        ) from error
    raise error
