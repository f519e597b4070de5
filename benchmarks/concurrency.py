"""Many callers of one model at once: texts, images and rerankings of short documents, from threads and event loops.

    uv run python -m benchmarks.concurrency [--size small] [--parts texts rerankings query beside loop pending]

The model has random weights. Parts:

texts       64 threads with a short text each, beside one call with the 64 texts, and beside a lock around the model;
            the same with sentence-transformers, where it is installed (the head of `benchmarks.rivals` says how)
rerankings  8 rerankings of 20 documents in 8 threads, beside their time in turn
query       one short query, beside a bare forward pass of the model
beside      a query a second while calls of 2,000 texts run, and the calls alone, in turns: latency of a query, loss
loop        a closed loop of 1 to 256 callers, each of whom makes the next call when it has the answer to the last one
pending     10,000 calls of `aembed` that wait in one event loop: memory, pauses, and the pauses of an idle loop
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import draw_image, random_words
from benchmarks.many import resident_mib
from benchmarks.models import SIZES, write
from benchmarks.rival_models import message, sentence_transformer
from qwen3vl import Embedder, Reranker
from qwen3vl.engine.packing import pack_prompts
from qwen3vl.inputs import as_item
from qwen3vl.processing.fitting import fit
from qwen3vl.processing.templates import embed_prompt

WORDS_PER_TEXT = 8
ROUNDS = 5
LOOP_S = 20.0
"""Seconds of each closed loop."""
CALLERS = (1, 4, 16, 64, 256)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all parts use.

    Attributes:
        embedder: The embedding model.
        reranker: The reranker.
        folder: Where images are written.
        checkpoint: Folder of the embedding model, if it is not the tiny one.
    """

    embedder: Embedder
    reranker: Reranker
    folder: Path
    checkpoint: Path | None


def seconds(work: Callable[[], Any]) -> float:
    """Return the seconds that a function takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(*works: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Return the median seconds of each function, measured in turns."""
    times = [[seconds(work) for work in works] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def in_threads(calls: Sequence[Callable[[], Any]]) -> None:
    """Make calls at once, each in a thread of its own, and wait for all."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> None:
        barrier.wait()
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(run, calls))


def texts(bench: Bench) -> None:
    """64 threads with a short text each."""
    random = Random(1)
    batch = [random_words(random, WORDS_PER_TEXT) for _ in range(64)]
    embed = bench.embedder.embed
    vectors = embed(batch)
    works: dict[str, Callable[[], Any]] = {
        "one call": lambda: embed(batch),
        "64 threads": lambda: in_threads([partial(embed, [text]) for text in batch]),
        "64 threads and a lock": lambda: in_threads(behind_lock(embed, batch)),
    }
    if bench.checkpoint and importlib.util.find_spec("sentence_transformers"):
        model = sentence_transformer(bench.checkpoint)

        def encode(texts: Sequence[str]) -> Any:
            return model.encode([message({"type": "text", "text": text}) for text in texts])

        cosine = float((encode(batch) * vectors).sum(1).min())
        if cosine < 0.99999:
            raise SystemExit(f"sentence-transformers gives other vectors, with a cosine of {cosine:.6f}; not timed")
        works["sentence-transformers, one call"] = lambda: encode(batch)
        works["sentence-transformers, 64 threads and a lock"] = lambda: in_threads(behind_lock(encode, batch))
    times = in_turns(*works.values())
    print("| 64 short texts | seconds | times one call |\n| --- | ---: | ---: |")
    for name, value in zip(works, times, strict=True):
        print(f"| {name} | {value:.2f} | {value / times[0]:.2f} |")


def behind_lock(embed: Callable[[Sequence[str]], Any], batch: Sequence[str]) -> list[Callable[[], None]]:
    """Return for each text a call that embeds it while no other call does."""
    lock = threading.Lock()

    def locked(text: str) -> None:
        with lock:
            embed([text])

    return [partial(locked, text) for text in batch]


def rerankings(bench: Bench) -> None:
    """8 rerankings of 20 documents."""
    random = Random(2)
    queries = [random_words(random, WORDS_PER_TEXT) for _ in range(8)]
    documents = [[random_words(random, 30) for _ in range(20)] for _ in queries]
    score = bench.reranker.score
    calls: list[Callable[[], Any]] = [
        lambda query=query, own=own: score(query, own)  # type: ignore[misc]
        for query, own in zip(queries, documents, strict=True)
    ]
    calls[0]()
    in_turn, at_once = in_turns(lambda: [call() for call in calls], lambda: in_threads(calls))
    print("| 8 rerankings of 20 documents | seconds | ratio |\n| --- | ---: | ---: |")
    print(f"| in turn | {in_turn:.2f} | 1 |\n| at once | {at_once:.2f} | {at_once / in_turn:.2f} |")


def query(bench: Bench) -> None:
    """One short query beside a bare forward pass."""
    text = random_words(Random(3), WORDS_PER_TEXT)
    engine = bench.embedder.engine
    replica = engine.replicas[0]
    parts = embed_prompt(engine.read_headers(as_item(text)), bench.embedder.instruction)
    (pack,) = pack_prompts([fit(parts, engine.tokenizer, engine.limits.max_length).prompt], 4096)

    def forward() -> None:
        with torch.inference_mode():
            replica.execute(pack, {}, {}, use_cache=False)

    async def embed_async() -> None:
        await bench.embedder.aembed([text])

    embed, asynchronous, bare = in_turns(
        lambda: bench.embedder.embed([text]), lambda: asyncio.run(embed_async()), forward, rounds=25
    )
    print("| one short query | ms | times a bare pass |\n| --- | ---: | ---: |")
    for name, value in (("forward pass", bare), ("embed", embed), ("aembed", asynchronous)):
        print(f"| {name} | {value * 1e3:.1f} | {value / bare:.2f} |")


def beside(bench: Bench) -> None:
    """A query a second, whether the one before has its answer or not, while large calls run.

    Calls with and without queries take turns, because the speed of a shared machine changes within minutes.
    """
    random = Random(4)
    queries = iter([random_words(random, WORDS_PER_TEXT) for _ in range(10_000)])
    calls = [[random_words(random, 12) for _ in range(2_000)] for _ in range(ROUNDS)]
    embed = bench.embedder.embed
    embed(calls[0])  # code for each number of rows, and the processor's clock
    latencies: list[float] = []

    def timed_query(text: str) -> None:
        latencies.append(seconds(lambda: embed([text])))

    def send_queries(pool: ThreadPoolExecutor, ended: threading.Event) -> None:
        while not ended.wait(1.0):
            pool.submit(timed_query, next(queries))

    def embed_beside_queries(inputs: list[str]) -> None:
        ended = threading.Event()
        query_thread = threading.Thread(target=send_queries, args=(pool, ended))
        query_thread.start()
        embed(inputs)
        ended.set()
        query_thread.join()

    alone: list[float] = []
    together: list[float] = []
    seconds_running = packs = 0.0
    with ThreadPoolExecutor(256) as pool:
        for number, inputs in enumerate(calls):
            before = bench.embedder.engine.stats

            def measure_alone(inputs: list[str] = inputs) -> None:
                alone.append(seconds(lambda: embed(inputs)))

            def measure_together(inputs: list[str] = inputs) -> None:
                together.append(seconds(lambda: embed_beside_queries(inputs)))

            for measure in (measure_alone, measure_together)[:: 1 if number % 2 else -1]:
                measure()
            done = bench.embedder.engine.stats - before
            seconds_running += done.seconds_running
            packs += done.packs
    p50, p95 = np.percentile(latencies, (50, 95))
    pack_s = seconds_running / packs
    losses = [beside_s / alone_s - 1 for beside_s, alone_s in zip(together, alone, strict=True)]
    print(f"| {ROUNDS} calls of {len(calls[0]):,} texts and a query a second | |\n| --- | ---: |")
    print(f"| the calls alone, s | {sum(alone):.1f} |\n| the calls with queries, s | {sum(together):.1f} |")
    print(f"| difference, median of the turns | {statistics.median(losses):+.1%} |")
    print(f"| lowest, highest | {min(losses):+.1%}, {max(losses):+.1%} |\n| one batch, s | {pack_s:.2f} |")
    print(f"| query, p50 and p95, s | {p50:.2f}, {p95:.2f} |\n| p95 in batches | {p95 / pack_s:.2f} |")
    print(f"| queries | {len(latencies)} |")


def loop(bench: Bench) -> None:
    """A closed loop of mixed calls."""
    random = Random(5)
    images = [{"image": draw_image(bench.folder, random, 224, 224)} for _ in range(64)]
    print("| callers | calls a second | p50, ms | p95, ms | p99, ms | calls in a batch | batches a call |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for num_callers in CALLERS:
        latencies: list[float] = []
        before = bench.embedder.engine.stats + bench.reranker.engine.stats
        end = time.perf_counter() + LOOP_S

        def caller(seed: int, end: float = end, latencies: list[float] = latencies) -> None:
            own = Random(seed)
            while (began := time.perf_counter()) < end:
                kind = own.randrange(10)
                if kind < 7:
                    bench.embedder.embed([random_words(own, WORDS_PER_TEXT)])
                elif kind < 9:
                    documents = [random_words(own, 30) for _ in range(10)]
                    bench.reranker.score(random_words(own, WORDS_PER_TEXT), documents)
                else:
                    bench.embedder.embed([own.choice(images)])
                latencies.append(time.perf_counter() - began)

        began = time.perf_counter()
        in_threads([lambda seed=seed: caller(seed) for seed in range(num_callers)])  # type: ignore[misc]
        elapsed_s = time.perf_counter() - began
        done = bench.embedder.engine.stats + bench.reranker.engine.stats - before
        p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) * 1e3
        print(
            f"| {num_callers} | {len(latencies) / elapsed_s:.1f} | {p50:.0f} | {p95:.0f} | {p99:.0f} "
            f"| {done.call_packs / done.packs:.1f} | {done.call_packs / done.calls:.2f} |",
            flush=True,
        )


def pending(bench: Bench) -> None:
    """10,000 awaits in one event loop, twice, beside the pauses of a loop on an idle machine.

    In the first round oneDNN generates code for the numbers of rows that it meets, and keeps it.
    """
    random = Random(6)
    inputs = [random_words(random, WORDS_PER_TEXT) for _ in range(10_000)]

    async def tick(pauses: list[float], sizes: list[int]) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            pauses.append(now - last)
            sizes.append(resident_mib())
            last = time.perf_counter()

    async def pauses_of(work: Callable[[], Awaitable[Any]]) -> tuple[list[float], int]:
        pauses: list[float] = []
        sizes: list[int] = []
        before = resident_mib()
        ticker = asyncio.ensure_future(tick(pauses, sizes))
        await asyncio.sleep(0.01)
        pauses.clear()
        await work()
        ticker.cancel()
        return pauses, max(sizes) - before

    async def call_all() -> tuple[float, list[float], int]:
        tasks = []
        for number, text in enumerate(inputs):
            tasks.append(asyncio.ensure_future(bench.embedder.aembed([text])))
            if number % 50 == 0:
                await asyncio.sleep(0)
        gc.collect()
        began = time.perf_counter()
        pauses, growth = await pauses_of(lambda: asyncio.gather(*tasks))
        return time.perf_counter() - began, pauses, growth

    idle, _ = asyncio.run(pauses_of(lambda: asyncio.sleep(LOOP_S)))
    rounds = [asyncio.run(call_all()) for _ in range(2)]
    print("| 10,000 pending aembed | idle loop | first round | second round |\n| --- | ---: | ---: | ---: |")
    columns = [idle, *(pauses for _, pauses, _ in rounds)]
    print("| seconds | |", " | ".join(f"{elapsed_s:.1f}" for elapsed_s, _, _ in rounds), "|")
    for label, percentile in (("longest pause of the loop", 100), ("99.9 % below", 99.9), ("99 % below", 99)):
        values = " | ".join(f"{float(np.percentile(pauses, percentile)) * 1e3:.1f}" for pauses in columns)
        print(f"| {label}, ms | {values} |")
    print("| growth of the process while they wait, MiB | |", " | ".join(str(growth) for _, _, growth in rounds), "|")


PARTS: dict[str, Callable[[Bench], None]] = {
    "texts": texts,
    "rerankings": rerankings,
    "query": query,
    "beside": beside,
    "loop": loop,
    "pending": pending,
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=[*SIZES, "tiny"])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scratch", type=Path, help="folder for the checkpoints; by default a temporary one")
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    with tempfile.TemporaryDirectory() as temporary:
        scratch = arguments.scratch or Path(temporary)
        checkpoint, models = None, ("tiny", "tiny")
        if arguments.size != "tiny":
            folder = write(scratch, arguments.size)
            checkpoint, models = folder / "embedding", (str(folder / "embedding"), str(folder / "reranker"))
        embedder, reranker = Embedder(models[0], device="cpu"), Reranker(models[1], device="cpu")
        bench = Bench(embedder, reranker, Path(temporary), checkpoint)
        for name in arguments.parts:
            PARTS[name](bench)
            print(flush=True)


if __name__ == "__main__":
    main()
