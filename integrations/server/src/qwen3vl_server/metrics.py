"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from qwen3vl.backends import BackendOwner
from qwen3vl_server.quotas import Quota

OTHER_PATH = "other"
"""Label of paths that do not exist: clients must not be able to create labels."""
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Metrics of one application, in a registry of its own.

    Args:
        models: The models by their labels, whose engines' statistics are shown.
        waiting_items: Counts the items of the requests that are being answered.
        waiting_bytes: Counts their bodies.
        paths: Paths that exist.
    """

    def __init__(
        self, models: Mapping[str, BackendOwner[Any]], waiting_items: Quota, waiting_bytes: Quota, paths: Iterable[str]
    ) -> None:
        self._paths = frozenset(paths)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "qwen3vl_requests", "Requests that were answered.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "qwen3vl_request_seconds",
            "Duration of requests, from their headers to the end of the answer.",
            ("path",),
            registry=self._registry,
            buckets=_BUCKETS_S,
        )
        for name, quota in (("items", waiting_items), ("bytes", waiting_bytes)):
            help_text = f"{name} of the requests that are being answered."
            Gauge(f"qwen3vl_waiting_{name}", help_text, registry=self._registry).set_function(partial(_used, quota))
        self._registry.register(_EngineCollector(models))
        ProcessCollector(registry=self._registry)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            path: Its path.
            status: Status of the answer.
            seconds: Its duration.
        """
        label = path if path in self._paths else OTHER_PATH
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def _used(quota: Quota) -> float:
    return quota.used


class _EngineCollector(Collector):
    """Reads the statistics of engines when the metrics are rendered."""

    def __init__(self, models: Mapping[str, BackendOwner[Any]]) -> None:
        self._models = models

    def collect(self) -> Iterable[CounterMetricFamily]:
        # A model without an engine is in another process, which has its statistics.
        stats = {label: model.engine.stats for label, model in self._models.items() if hasattr(model, "engine")}
        for field in fields(next(iter(stats.values()))) if stats else ():
            family = CounterMetricFamily(
                f"qwen3vl_engine_{field.name}", f"`{field.name}` of qwen3vl.engine.Stats.", labels=("model",)
            )
            for label, values in stats.items():
                family.add_metric((label,), getattr(values, field.name))
            yield family
