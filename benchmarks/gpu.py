r"""Throughput and latency on a GPU, beside the GPU's own rate and beside other implementations.

    python -m benchmarks.gpu [--official CHECKOUT] [--out FOLDER]                size of the 2B model, bfloat16, on CUDA
    python -m benchmarks.gpu --size golden --device cpu --scale 0.02             to try the script without a GPU

No row begins after 570 seconds. The weights are random: the speed is that of the real model, and results are compared
with ours in float32 on the CPU. Rates are floating point operations of the model (`qwen3vl.model.flops`) per second,
beside those of a large matrix product in the same run. A row that cannot be run says why.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_common import Bench, draw_pages, measure_matmul_rate, time_call
from benchmarks.gpu_rivals import rival_rows
from benchmarks.models import write
from qwen3vl import Embedder, Reranker
from qwen3vl.engine import Stats

TIME_LIMIT_S = 570.0
"""Seconds after which no further row is begun."""


def measured_row(name: str, bench: Bench, work: Callable[[], Any], read_stats: Callable[[], Stats], count: int) -> str:
    """Call our work once, without a warm-up, and format a table row.

    Args:
        name: What the row is about.
        bench: The benchmark.
        work: The work.
        read_stats: Returns the engine's present counts; those before and after are subtracted.
        count: Number of items that the work embeds or scores.

    Returns:
        The row: items, requested tokens (shared prefixes count for each prompt) and TFLOP of the forward passes per
        second, the last also as a share of the matrix product's rate, and the time in which the device waited for input
        as a share of waiting and running.
    """
    before = read_stats()
    seconds, _ = time_call(work, bench.device)
    spent = read_stats() - before
    waiting = spent.seconds_waiting / max(spent.seconds_waiting + spent.seconds_running, 1e-9)
    flops_rate = spent.flops / seconds
    return (
        f"| {name} | {count / seconds:,.1f} | {spent.tokens_requested / seconds:,.0f} "
        f"| {flops_rate / 1e12:,.1f} | {flops_rate / bench.matmul_rate:.0%} | {waiting:.1%} |"
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    ", compiled": {"compiled": True},
    ", fp8": {"dtype": "fp8"},
    ", fp8, compiled": {"dtype": "fp8", "compiled": True},
    ", int8": {"dtype": "int8"},
}


def engine_rows(bench: Bench) -> Iterator[Callable[[], str]]:
    """Yield functions that each measure and return a row: our engine, with default settings and with each option.

    Args:
        bench: The benchmark.
    """
    pages = [{"image": path} for path in bench.pages]
    texts = bench.texts(bench.scaled(2000))
    for suffix, options in OPTIONS.items():
        yield partial(embedding_row, bench, f"embed {len(pages)} pages{suffix}", pages, 32, options)
        yield partial(embedding_row, bench, f"embed {len(texts)} texts of 256 tokens{suffix}", texts, 200, options)
    yield partial(reranking_row, bench, "", clear_cache=True)
    yield partial(reranking_row, bench, ", cached", clear_cache=False)


def embedding_row(bench: Bench, name: str, inputs: Sequence[Any], num_warmup: int, options: dict[str, Any]) -> str:
    """Embed inputs without the vision feature cache.

    Args:
        bench: The benchmark.
        name: What the row is about.
        inputs: The inputs.
        num_warmup: Number of inputs, at scale 1, that are embedded before the time is taken.
        options: Settings of the embedder.

    Returns:
        The row.
    """
    embedder = bench.embedder(vision_cache=0, **options)
    embedder.embed(inputs[: bench.scaled(num_warmup)])
    return measured_row(name, bench, partial(embedder.embed, inputs), lambda: embedder.engine.stats, len(inputs))


def reranking_row(bench: Bench, suffix: str, *, clear_cache: bool) -> str:
    """Rerank pages for a query.

    Args:
        bench: The benchmark.
        suffix: End of the row's name.
        clear_cache: Whether the vision feature cache is empty when the time is taken.

    Returns:
        The row.
    """
    reranker = Reranker(bench.models / "reranker", device=str(bench.device), dtype=bench.dtype, vision_cache=4 << 30)
    pages = [{"image": path} for path in bench.pages[: bench.scaled(100)]]
    reranker.score("the harbour in winter", pages)
    if clear_cache:
        reranker.engine.clear_vision_cache()
    name = f"rerank {len(pages)} pages for a query{suffix}"
    work = partial(reranker.score, "the market by the river", pages)
    return measured_row(name, bench, work, lambda: reranker.engine.stats, len(pages))


def batch_size_rows(bench: Bench) -> Iterator[Callable[[], str]]:
    """Yield functions that each measure and return a row: texts per second, for one number of texts in a call.

    Args:
        bench: The benchmark.
    """

    def row(count: int) -> str:
        embedder = bench.embedder()
        num_calls = max(1, bench.scaled(256) // count)
        batches = [bench.texts(count) for _ in range(num_calls + 1)]
        embedder.embed(batches[0])
        seconds, _ = time_call(lambda: [embedder.embed(batch) for batch in batches[1:]], bench.device)
        return f"| {count:,} | {num_calls * count / seconds:,.1f} |"

    yield from (partial(row, count) for count in (1, 4, 16, 64, 256, 1024) if count <= bench.scaled(1024))


def latency_row(bench: Bench, *, cuda_graphs: bool) -> str:
    """Time a short query through the whole engine, and the model's forward pass over the same tokens.

    Args:
        bench: The benchmark.
        cuda_graphs: Whether the engine runs the query as a CUDA graph; a warning in the log says so if it cannot.

    Returns:
        The row. The time of the forward pass includes the copy of the result to the CPU. Both times are medians of 50
        runs after 10 that are not counted.
    """
    from qwen3vl.engine.packing import pack_prompts
    from qwen3vl.processing.fitting import fit
    from qwen3vl.processing.templates import PromptContent, embed_prompt

    embedder = bench.embedder(cuda_graphs=cuda_graphs)
    query = "the lantern by the frozen harbour"
    content: PromptContent[Any] = PromptContent(videos=(), images=(), texts=(query,))
    prompt = fit(embed_prompt(content, embedder.instruction), embedder.engine.tokenizer, 8192).prompt
    (pack,) = pack_prompts([prompt], 1 << 30)
    input_ids, position_ids, output_indices, vision_token_indices = (
        torch.from_numpy(values).to(bench.device)
        for values in (pack.input_ids, pack.position_ids, pack.output_indices, pack.vision_token_indices)
    )

    def forward() -> None:
        with torch.inference_mode():
            model = embedder.engine.model
            model(input_ids, position_ids, pack.layout, output_indices, vision_token_indices, None).float().cpu()

    def median_s(work: Callable[[], Any]) -> float:
        return statistics.median([time_call(work, bench.device)[0] for _ in range(60)][10:])

    engine_s, forward_s = median_s(lambda: embedder.embed(query)), median_s(forward)
    name = f"{pack.num_tokens} tokens{', CUDA graphs' if cuda_graphs else ''}"
    return f"| {name} | {engine_s * 1e3:.2f} | {forward_s * 1e3:.2f} | {engine_s / forward_s:.2f} |"


def exactness_rows(bench: Bench) -> Iterator[Callable[[], str]]:
    """Yield functions that each measure and return a row: how near the vectors of a dtype are to exact ones.

    A row has the lowest and the median cosine to vectors of float32 on the CPU, with the same weights. Writes two small
    images beside the pages.

    Args:
        bench: The benchmark.
    """
    inputs: list[Any] = [*bench.texts(4), "a short query"]
    for number, path in enumerate(bench.pages[:2]):
        small = Path(path).with_name(f"small-{number}.jpg")
        Image.open(path).crop((0, 0, 512, 384)).save(small)
        inputs.append({"image": small})

    @cache
    def reference() -> Any:
        return Embedder(bench.models / "embedding", device="cpu", dtype="float32").embed(inputs)

    def row(dtype: str, compiled: bool) -> str:
        vectors = bench.embedder(dtype=dtype, compiled=compiled).embed(inputs)
        cosines = (vectors * reference()).sum(1)
        return f"| {dtype}{', compiled' if compiled else ''} | {np.min(cosines):.5f} | {np.median(cosines):.5f} |"

    for dtype, compiled in ((bench.dtype, False), (bench.dtype, True), ("fp8", False), ("int8", False)):
        yield partial(row, dtype, compiled)


def run_rows(rows: Iterator[Callable[[], str]], bench: Bench) -> Iterator[str]:
    """Run rows; one that fails, or for which there is no time, says so.

    Args:
        rows: Functions that return a row. If the iterator itself fails, that is the last line.
        bench: The benchmark.

    Yields:
        Lines of the table.
    """
    while True:
        try:
            row = next(rows, None)
            if row is None:
                return
            in_time = time.perf_counter() - bench.began <= TIME_LIMIT_S
            line = row() if in_time else "| not run: no time is left |"
        except Exception as error:  # the other rows and tables are still useful
            line = f"| not run: {type(error).__name__}: {str(error).partition(chr(10))[0][:160]} |"
        yield line
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def report(bench: Bench, checkout: Path | None) -> Iterator[str]:
    """Run all rows.

    Args:
        bench: The benchmark.
        checkout: Folder of the official repository, if there is one.

    Yields:
        Lines of a Markdown document, without the title line.
    """
    yield f"\n## Throughput\n\nA matrix product runs at {bench.matmul_rate / 1e12:,.1f} TFLOP/s.\n"
    yield "| work | items/s | tokens/s | TFLOP/s | fraction of the product | waiting for input |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    yield from run_rows(engine_rows(bench), bench)
    yield "\n## Other implementations\n\n| work | items/s | results |\n| --- | ---: | --- |"
    yield from run_rows(rival_rows(bench, checkout), bench)
    yield "\n## Batch size\n\n| texts in a call | texts/s |\n| ---: | ---: |"
    yield from run_rows(batch_size_rows(bench), bench)
    yield "\n## Latency\n\n| query | engine, ms | forward pass, ms | ratio |\n| --- | ---: | ---: | ---: |"
    yield from run_rows((partial(latency_row, bench, cuda_graphs=value) for value in (False, True)), bench)
    yield "\n## Exactness\n\n| dtype | lowest cosine to float32 on the CPU | median |\n| --- | ---: | ---: |"
    yield from run_rows(exactness_rows(bench), bench)


def main() -> None:
    """Run the benchmark that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of the official repository")
    parser.add_argument("--size", default="2B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the numbers of items")
    parser.add_argument("--models", type=Path, help="folder that keeps the checkpoints")
    parser.add_argument("--out", type=Path, help="folder of gpu.md, to whose end what is printed is added")
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    began = time.perf_counter()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    name = str(dtype).removeprefix("torch.")

    def write_line(line: str) -> None:
        print(line, flush=True)
        if options.out:
            with (options.out / "gpu.md").open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    with tempfile.TemporaryDirectory() as scratch:
        models = write(options.models or Path(scratch), options.size, dtype, str(device))
        pages = draw_pages(Path(scratch), max(4, round(240 * options.scale)))
        bench = Bench(models, device, name, options.scale, measure_matmul_rate(device, dtype), pages, Random(1), began)
        write_line(f"torch {torch.__version__}, {card}, {options.size}, {name}")
        for line in report(bench, options.official):
            write_line(line)
    write_line(f"\n{time.perf_counter() - began:.0f} s in total.")


if __name__ == "__main__":
    main()
