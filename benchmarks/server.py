"""`qwen3vl serve` under load: clients over loopback beside the same texts in one process.

    uv run python -m benchmarks.server [--size small] [--clients 1 4 16 64 256] [--soak 50000]
        [--sentence-transformers] [--vllm PYTHON] [--infinity PYTHON]

The model has random weights. Each client sends a short text to `/v1/embeddings`, waits for the vector, and sends the
next one. In this process, `Embedder.embed` gets the same texts in batches of as many as there are clients (the ratio is
to these), and as many tasks await `Embedder.aembed`. The sides take turns, with each request if there is one client,
after their vectors were compared. Clients and server share the processors; clients on other machines leave more to the
server.

With `--soak N`, 64 clients then send N requests, while the memory of the server is read.

Other servers take part in the turns, if they are installed (`benchmarks/README.md` says how): with
`--sentence-transformers` a FastAPI application around sentence-transformers, with `--vllm` and `--infinity` those of
vLLM and infinity.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.util
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import random_words
from benchmarks.many import resident_mib
from benchmarks.models import SIZES, write
from benchmarks.rival_servers import infinity_server, vllm_server
from benchmarks.vllm_side import embedding_prompt
from qwen3vl import Embedder

WORDS_PER_TEXT = 8
CLIENTS = (1, 4, 16, 64, 256)
SOAK_CLIENTS = 64
SOAK_STEPS = 20
TEXTS_PER_CLIENT = 8
"""How many texts each client has at least; with fewer, the start and the end of a loop would count too much."""

BATCHES, TASKS, SERVER = "embed, in batches", "aembed, in tasks", "qwen3vl serve"
"""The sides: two in this process, and the server."""

Embed = Callable[[str], Awaitable[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class ServerUnderTest:
    """A server in a process of its own.

    Attributes:
        url: Its address.
        process: The process.
        prompt: What it gets as `input` for a text: the text, or the whole prompt.
    """

    url: str
    process: subprocess.Popen[str]
    prompt: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class Load:
    """What some clients measured, over all turns.

    Attributes:
        seconds: Durations of the turns.
        latencies: Duration of each request in seconds.
    """

    seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    @property
    def requests_per_s(self) -> float:
        """Requests answered in a second."""
        return len(self.latencies) / sum(self.seconds)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return float(np.percentile(self.latencies, percent)) * 1e3


def draw_texts(seed: int, count: int) -> list[str]:
    """Return short texts."""
    random = Random(seed)
    return [random_words(random, WORDS_PER_TEXT) for _ in range(count)]


@contextmanager
def started(*arguments: str) -> Iterator[ServerUnderTest]:
    """Start a server that prints its address, and end it with SIGTERM."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("serving at "):
                raise SystemExit(f"{' '.join(command)} did not start: {line}")
            yield ServerUnderTest(line.removeprefix("serving at ").strip(), process)
        finally:
            process.send_signal(signal.SIGTERM)


async def open_clients(stack: AsyncExitStack, server: ServerUnderTest, count: int) -> list[Embed]:
    """Return functions that embed a text over HTTP, each with a connection of its own.

    By aiohttp, whose parser is compiled: the clients share the processors with the server.
    """
    embeds = []
    for _ in range(count):
        client = aiohttp.ClientSession(base_url=server.url, timeout=aiohttp.ClientTimeout(600))
        embeds.append(_over_http(await stack.enter_async_context(client), server.prompt))
    return embeds


def _over_http(client: aiohttp.ClientSession, prompt: Callable[[str], str]) -> Embed:
    async def embed(text: str) -> NDArray[np.float32]:
        body = {"input": prompt(text), "encoding_format": "base64"}
        async with client.post("/v1/embeddings", json=body, raise_for_status=True) as response:
            answer = await response.json()
        return np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), dtype="<f4")

    return embed


def in_process(embedder: Embedder) -> Embed:
    """Return a function that embeds a text in this process."""

    async def embed(text: str) -> NDArray[np.float32]:
        vectors = await embedder.aembed([text])
        return vectors.reshape(-1)

    return embed


async def run_closed_loop(embeds: Sequence[Embed], texts: Sequence[str], load: Load) -> None:
    """Let each client embed one text after the other until there are none left."""
    unsent = iter(texts)

    async def send(embed: Embed) -> None:
        for text in unsent:
            began = time.perf_counter()
            await embed(text)
            load.latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(send, embeds))
    load.seconds.append(time.perf_counter() - began)


def run_batches(embedder: Embedder, texts: Sequence[str], size: int, load: Load) -> None:
    """Embed texts in batches; the latency of each is that of its batch."""
    began = time.perf_counter()
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        batch_began = time.perf_counter()
        embedder.embed(batch)
        load.latencies.extend([time.perf_counter() - batch_began] * len(batch))
    load.seconds.append(time.perf_counter() - began)


async def check_equal(embedder: Embedder, servers: dict[str, ServerUnderTest]) -> None:
    """Raise `SystemExit` if a server gives other vectors than this process."""
    texts = draw_texts(1, 16)
    expected = embedder.embed(texts)
    for name, server in servers.items():
        async with AsyncExitStack() as stack:
            (embed,) = await open_clients(stack, server, 1)
            vectors = np.stack([await embed(text) for text in texts])
        cosine = float((vectors * expected).sum(1).min())
        if cosine < 0.99999:
            raise SystemExit(f"{name} gives other vectors, with a cosine of {cosine:.6f}; not timed")


async def measure(
    embedder: Embedder, servers: dict[str, ServerUnderTest], num_clients: int, num_requests: int, turns: int
) -> dict[str, Load]:
    """Measure all sides with some clients, in turns, after a warm-up."""
    texts = draw_texts(num_clients, max(num_requests, num_clients * TEXTS_PER_CLIENT))
    async with AsyncExitStack() as stack:
        sides = {TASKS: [in_process(embedder)] * num_clients}
        for name, server in servers.items():
            sides[name] = await open_clients(stack, server, num_clients)
        loads = {name: Load() for name in (BATCHES, *sides)}
        for embeds in sides.values():
            await run_closed_loop(embeds, texts[:num_clients], Load())
        # With one client, the sides take turns with each request: a machine's speed may change by more than what a
        # server adds within the time of a hundred requests.
        parts = [[text] for text in texts] if num_clients == 1 else [texts]
        for part in parts * turns:
            run_batches(embedder, part, num_clients, loads[BATCHES])
            for name, embeds in sides.items():
                await run_closed_loop(embeds, part, loads[name])
    return loads


def print_loads(num_clients: int, loads: dict[str, Load]) -> None:
    """Print a row of the table for each side."""
    base = loads[BATCHES]
    for name, load in loads.items():
        p50, p95, p99 = (load.percentile_ms(percent) for percent in (50, 95, 99))
        print(
            f"| {num_clients} | {name} | {load.requests_per_s:.1f} | {load.requests_per_s / base.requests_per_s:.2f} "
            f"| {p50:.1f} | {p95:.1f} | {p99:.1f} | {p50 - base.percentile_ms(50):+.1f} |",
            flush=True,
        )


async def soak(server: ServerUnderTest, num_requests: int) -> None:
    """Send many requests, and print the server's memory after each part of them."""
    print(f"| requests of {SOAK_CLIENTS} clients | memory of the server, MiB | requests a second | p99, ms |")
    print("| ---: | ---: | ---: | ---: |")
    print(f"| 0 | {resident_mib(server.process.pid)} | | |")
    sent = 0
    async with AsyncExitStack() as stack:
        embeds = await open_clients(stack, server, SOAK_CLIENTS)
        while sent < num_requests:
            count = min(-(-num_requests // SOAK_STEPS), num_requests - sent)
            load = Load()
            await run_closed_loop(embeds, draw_texts(1000 + sent, count), load)
            sent += count
            memory = resident_mib(server.process.pid)
            print(f"| {sent} | {memory} | {load.requests_per_s:.1f} | {load.percentile_ms(99):.1f} |", flush=True)


async def run(embedder: Embedder, servers: dict[str, ServerUnderTest], arguments: argparse.Namespace) -> None:
    """Run all parts."""
    await check_equal(embedder, servers)
    print("| clients | side | requests a second | ratio | p50, ms | p95, ms | p99, ms | difference of p50, ms |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for num_clients in arguments.clients:
        loads = await measure(embedder, servers, num_clients, arguments.requests, arguments.turns)
        print_loads(num_clients, loads)
    if arguments.soak:
        print()
        await soak(servers[SERVER], arguments.soak)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--clients", nargs="*", type=int, default=list(CLIENTS))
    parser.add_argument("--requests", type=int, default=500, help="of all clients in a turn; with many clients, more")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="number of requests")
    parser.add_argument("--sentence-transformers", action="store_true")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="interpreter of an environment with vLLM")
    parser.add_argument("--infinity", type=Path, metavar="PYTHON", help="interpreter of an environment with infinity")
    parser.add_argument("--scratch", type=Path, help="folder for the checkpoints; by default a temporary one")
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        checkpoint = write(arguments.scratch or Path(temporary), arguments.size) / "embedding"
        serve = ("qwen3vl", "serve", "--embedder", str(checkpoint), "--device", "cpu", "--port", "0")
        servers = {SERVER: stack.enter_context(started(*serve))}
        if arguments.sentence_transformers and not importlib.util.find_spec("sentence_transformers"):
            print("sentence-transformers is not installed, and is left out\n")
        elif arguments.sentence_transformers:
            rival = started("benchmarks.server_rival", str(checkpoint))
            servers["sentence-transformers in FastAPI"] = stack.enter_context(rival)
        for name, python, start in (
            ("vLLM", arguments.vllm, vllm_server),
            ("infinity", arguments.infinity, infinity_server),
        ):
            if python:
                url, process = stack.enter_context(start(python, checkpoint, torch.get_num_threads()))
                servers[name] = ServerUnderTest(url, process, embedding_prompt)
        embedder = stack.enter_context(Embedder(str(checkpoint), device="cpu"))
        asyncio.run(run(embedder, servers, arguments))


if __name__ == "__main__":
    main()
