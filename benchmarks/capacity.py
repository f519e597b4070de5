"""How many machines and hours a large collection takes: arithmetic only, with what was measured as arguments.

    python -m benchmarks.capacity --pages 10e6 --gpus 8
    python -m benchmarks.capacity --pages 1e9 --gpus 512 --gpu-pages-per-s 42

The defaults of rates are assumptions where docs/scale.md says so: measure yours, and pass them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import ceil

GIB = 2**30
TIB = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the arithmetic starts from; each is an argument of the command."""

    pages: float = 10e6
    gpus: float = 8
    gpus_per_node: float = 8
    gpu_pages_per_s: float = 40.0
    core_pages_per_s: float = 12.0
    page_kib: float = 300.0
    dimensions: float = 2048
    bytes_per_value: float = 4
    payload_bytes: float = 700
    index_links: float = 16
    quantized_bits: float = 8
    store_node_gib: float = 128
    store_node_points_per_s: float = 3000.0
    store_node_indexed_per_s: float = 1000.0
    replicas: float = 2
    manifest_rows: float = 100_000
    batch_rows: float = 64
    driver_bytes_per_task: float = 1000
    gpu_hour: float = 3.0
    store_node_hour: float = 1.5


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the answer."""

    stage: str
    quantity: str
    value: str


def rows_of(inputs: Inputs) -> Iterator[Row]:
    """Yield what the inputs lead to, stage by stage."""
    rate = inputs.gpus * inputs.gpu_pages_per_s
    hours = inputs.pages / rate / 3600
    nodes = ceil(inputs.gpus / inputs.gpus_per_node)
    yield Row("embedding", "pages a second", f"{rate:,.0f}")
    yield Row("embedding", "GPU hours", f"{inputs.pages / inputs.gpu_pages_per_s / 3600:,.0f}")
    yield Row("embedding", "days", f"{hours / 24:,.1f}")
    yield Row("embedding", "cost", f"{hours * inputs.gpus * inputs.gpu_hour:,.0f}")

    cores = rate / inputs.core_pages_per_s
    yield Row("decoding", "cores for each GPU", f"{cores / inputs.gpus:,.1f}")
    yield Row("decoding", "cores for each node", f"{cores / nodes:,.0f}")
    yield Row("reading", "source files, TiB", f"{inputs.pages * inputs.page_kib * 1024 / TIB:,.1f}")
    yield Row("reading", "Gbit/s of each node", f"{rate / nodes * inputs.page_kib * 1024 * 8 / 1e9:,.2f}")
    yield Row("reading", "Gbit/s together", f"{rate * inputs.page_kib * 1024 * 8 / 1e9:,.1f}")

    manifests = ceil(inputs.pages / inputs.manifest_rows)
    tasks = inputs.pages / inputs.batch_rows
    yield Row("manifests", "number", f"{manifests:,}")
    yield Row("manifests", "minutes of one on one node", f"{inputs.manifest_rows / (rate / nodes) / 60:,.1f}")
    yield Row("Ray", "batches of one run over all", f"{tasks:,.0f}")
    yield Row("Ray", "driver's memory for them, GiB", f"{tasks * inputs.driver_bytes_per_task / GIB:,.1f}")
    yield Row("Ray", "MB/s of vectors to the store", f"{rate * vector_bytes(inputs) / 1e6:,.1f}")

    yield from _store_rows(inputs, rate)


def _store_rows(inputs: Inputs, rate: float) -> Iterator[Row]:
    disk = inputs.pages * (vector_bytes(inputs) + inputs.payload_bytes) * inputs.replicas
    quantized = inputs.dimensions * inputs.quantized_bits / 8
    # The lowest layer of HNSW has twice as many links as the others, of 4 bytes each.
    links = inputs.index_links * 2 * 4
    memory = inputs.pages * (quantized + links) * inputs.replicas
    store_nodes = max(ceil(memory / (0.8 * inputs.store_node_gib * GIB)), int(inputs.replicas))
    yield Row("store", "vectors and payloads on disk, TiB", f"{disk / TIB:,.2f}")
    yield Row("store", "memory for quantized vectors and links, TiB", f"{memory / TIB:,.2f}")
    yield Row("store", f"nodes of {inputs.store_node_gib:g} GiB", f"{store_nodes:,}")
    writes = store_nodes * inputs.store_node_points_per_s / inputs.replicas
    yield Row("store", "points a second it takes", f"{writes:,.0f}")
    yield Row("store", "share of that which the GPUs fill", f"{rate / writes:.0%}")
    indexing = inputs.pages * inputs.replicas / (store_nodes * inputs.store_node_indexed_per_s) / 3600
    yield Row("store", "hours of indexing after the last point", f"{indexing:,.1f}")
    yield Row("store", "cost of a month", f"{store_nodes * inputs.store_node_hour * 730:,.0f}")


def vector_bytes(inputs: Inputs) -> float:
    """Return the size of a vector as it is sent and stored."""
    return inputs.dimensions * inputs.bytes_per_value


def main() -> None:
    """Print the answer as a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Inputs):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    inputs = Inputs(**vars(parser.parse_args()))
    print("| stage | quantity | value |\n| --- | --- | ---: |")
    for row in rows_of(inputs):
        print(f"| {row.stage} | {row.quantity} | {row.value} |")


if __name__ == "__main__":
    main()
