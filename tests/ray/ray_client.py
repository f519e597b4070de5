"""Uses a cluster through Ray Client."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import ray
from qwen3vl_ray import read
from qwen3vl_ray.command import index_on_cluster

from qwen3vl import Loader, RecipeError


def use_client(address: str, location: str, paths: tuple[str, ...]) -> dict[str, Any]:
    """Return the report of what `qwen3vl index --ray ray://…` calls, an error of it, and why `read` is refused."""
    arguments: dict[str, Any] = {"collection": "qwen3vl", "loader": Loader(), "sync": False, "layout": None}
    model: dict[str, Any] = {"model": "tiny", "device": "cpu"}
    report = index_on_cluster(address, paths, location, **arguments, **model)
    answers: dict[str, Any] = {"report": asdict(report)}
    ray.init(address)  # the first call has connected and disconnected; the second one finds this
    try:
        index_on_cluster(address, paths, location, **arguments, **model, fps=2.0)
    except RecipeError as error:
        answers["recipe"] = str(error)
    try:
        read(paths)
    except RuntimeError as error:
        answers["read"] = str(error)
    ray.shutdown()
    return answers
