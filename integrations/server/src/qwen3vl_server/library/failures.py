"""Failures of the store as answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qwen3vl.errors import RecipeError, StoreError
from qwen3vl_server.errors import RequestError


@contextmanager
def store_failures() -> Iterator[None]:
    """Return a context in which a failure of the store becomes the answer.

    Yields:
        Nothing.

    Raises:
        RequestError: Status 503 if the store may do it later, 400 if it cannot use the request, else 409.
    """
    try:
        yield
    except StoreError as error:
        status = 503 if error.transient else 400 if error.invalid_request else 409
        raise RequestError(status, str(error), code="store_error") from error
    except RecipeError as error:
        raise RequestError(409, str(error), code="store_error") from error
