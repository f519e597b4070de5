"""Longest pause of an event loop while 200 tasks call one model at once.

    uv run python -m benchmarks.responsive

It uses the tiny models, whose forward passes are short, to measure the adapters and the engine, not the model.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from langchain_core.documents import Document
from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLReranker
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

from benchmarks.inputs import draw_image, random_words
from qwen3vl import MediaPolicy

NUM_TASKS = 200
"""Tasks that run at once."""


async def measure(call: Callable[[int], Awaitable[Any]]) -> tuple[float, float]:
    """Run `NUM_TASKS` calls at once.

    Args:
        call: Makes the call of a given number.

    Returns:
        Seconds that all calls took, and the longest pause of the event loop in seconds.
    """
    pauses_s: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            pauses_s.append(now - last)
            last = now

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    pauses_s.clear()
    began = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(NUM_TASKS)))
    elapsed_s = time.perf_counter() - began
    ticker.cancel()
    return elapsed_s, max(pauses_s)


async def print_rows(folder: Path) -> None:
    """Print a table row for each kind of call.

    Args:
        folder: Where images are written.
    """
    random = Random(2)
    policy = MediaPolicy(folders=(folder,))
    images = [draw_image(folder, random, 96, 96) for _ in range(NUM_TASKS)]
    texts = [random_words(random, 8) for _ in range(NUM_TASKS)]
    documents = [Document(random_words(random, 8)) for _ in range(3)]
    embeddings = Qwen3VLEmbeddings(model="tiny", device="cpu", policy=policy)
    reranker = Qwen3VLReranker(model="tiny", device="cpu", policy=policy)
    llama_index_embedding = Qwen3VLEmbedding(model_name="tiny", device="cpu", policy=policy)
    cases: dict[str, Callable[[int], Awaitable[Any]]] = {
        "LangChain, texts": lambda number: embeddings.aembed_query(texts[number]),
        "LangChain, images": lambda number: embeddings.aembed_query({"image": images[number]}),
        "LangChain, rerankings of 3": lambda number: reranker.acompress_documents(documents, texts[number]),
        "LlamaIndex, texts": lambda number: llama_index_embedding.aget_text_embedding(texts[number]),
        "LlamaIndex, images": lambda number: llama_index_embedding.aget_image_embedding(images[number]),
    }
    print("| 200 at once | seconds | longest pause, ms |\n| --- | ---: | ---: |")
    for name, call in cases.items():
        await call(0)  # loads the model
        elapsed_s, pause_s = await measure(call)
        print(f"| {name} | {elapsed_s:.2f} | {pause_s * 1e3:.0f} |", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(print_rows(Path(scratch)))


if __name__ == "__main__":
    main()
