"""Compiling the model's elementwise functions with `torch.compile`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from qwen3vl.model.layers.elementwise import Elementwise

log = logging.getLogger(__name__)


def compile_elementwise(model: nn.Module) -> None:
    """Replace all elementwise functions of a model by compiled ones, in place.

    Functions are compiled at their first call. One that cannot be compiled runs eagerly; see `compile_or_eager`.

    Args:
        model: Any module that contains `Elementwise` modules.
    """
    for module in model.modules():
        if isinstance(module, Elementwise):
            module.function = compile_or_eager(module.eager_function)


@lru_cache(maxsize=16)
def compile_or_eager(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that it is compiled at its first call, and runs eagerly if that fails.

    A failure is logged once. The wrapper is shared by everything that passes the same function.

    Args:
        function: A function on tensors.

    Returns:
        A function with the same results, up to rounding.
    """
    compiled: Callable[..., Any] | None = None
    failed = False
    name = getattr(function, "__name__", repr(function))

    def call(*arguments: Any) -> Any:
        nonlocal compiled, failed
        if not failed:
            try:
                compiled = compiled or torch.compile(function)
                return compiled(*arguments)
            except Exception as error:  # no compiler, or one that does not fit this torch
                reason = error
            # An error that is not the compiler's, such as a lack of memory, is raised by this call as well.
            result = function(*arguments)
            log.warning("%s is not compiled: %s", name, str(reason).partition("\n")[0])
            failed = True
            return result
        return function(*arguments)

    return call
