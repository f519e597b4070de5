"""How long an event loop is kept from turning while 200 tasks ask one model at once.

    uv run python -m benchmarks.responsive

The tiny pair, whose forward passes are short: what is seen is the adapters and the engine, not the model.
"""

from __future__ import annotations

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

from benchmarks.rivals import picture, words
from qwen3vl import MediaPolicy

TASKS = 200


async def longest_gap(ask: Callable[[int], Awaitable[Any]]) -> tuple[float, float]:
    """(seconds in all, seconds that the loop stood still at most) of TASKS tasks at once."""
    gaps: list[float] = []

    async def turning() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    turn = asyncio.create_task(turning())
    await asyncio.sleep(0.05)
    gaps.clear()
    began = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(TASKS)))
    seconds = time.perf_counter() - began
    turn.cancel()
    return seconds, max(gaps)


async def rows(folder: Path) -> None:
    random = Random(2)
    policy = MediaPolicy(folders=(folder,))
    shown = [picture(folder, random, 96, 96) for _ in range(TASKS)]
    texts = [words(random, 8) for _ in range(TASKS)]
    documents = [Document(words(random, 8)) for _ in range(3)]
    embeddings = Qwen3VLEmbeddings(model="tiny", device="cpu", policy=policy)
    reranker = Qwen3VLReranker(model="tiny", device="cpu", policy=policy)
    nodes = Qwen3VLEmbedding(model_name="tiny", device="cpu", policy=policy)
    cases: dict[str, Callable[[int], Awaitable[Any]]] = {
        "LangChain, texts": lambda number: embeddings.aembed_query(texts[number]),
        "LangChain, pictures": lambda number: embeddings.aembed_query({"image": shown[number]}),
        "LangChain, rerankings of 3": lambda number: reranker.acompress_documents(documents, texts[number]),
        "LlamaIndex, texts": lambda number: nodes.aget_text_embedding(texts[number]),
        "LlamaIndex, pictures": lambda number: nodes.aget_image_embedding(shown[number]),
    }
    print("| 200 at once | seconds | max_seqlen gap, ms |\n| --- | ---: | ---: |")
    for name, ask in cases.items():
        await ask(0)
        seconds, gap = await longest_gap(ask)
        print(f"| {name} | {seconds:.2f} | {gap * 1e3:.0f} |", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(rows(Path(scratch)))


if __name__ == "__main__":
    main()
