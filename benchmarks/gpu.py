r"""What a GPU is made to do, beside what it can do and beside others: one command, under ten minutes.

    python -m benchmarks.gpu [--official CHECKOUT] [--out FOLDER]                the 2B model's size, bf16, on CUDA
    python -m benchmarks.gpu --size golden --device cpu --scale 0.02             to try the script anywhere

The weights are random: speed is that of the real model, and answers are compared with ours in float32 on the CPU.
Rates are model operations (`qwen3vl.model.flops`) by the second, beside that of a large matrix product in the same run.
A row that cannot be run says why.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.models import write
from benchmarks.rivals import message, official, sentence_transformer, words
from qwen3vl import Embedder, Reranker
from qwen3vl.engine.stats import Stats

PAGE = (1240, 1443)
"""Width and height of a page of 1,755 tokens: 39 x 45 of 32 x 32 pixels."""
LIMIT = 570.0
"""Seconds after which no further row is begun."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all rows use."""

    models: Path
    device: torch.device
    dtype: str
    scale: float
    rate: float
    pages: Sequence[str]
    random: Random
    began: float

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def count(self, number: int) -> int:
        return max(2, round(number * self.scale))

    def embedder(self, **options: Any) -> Embedder:
        return Embedder(self.models / "embedding", **{"device": str(self.device), "dtype": self.dtype, **options})

    def texts(self, number: int) -> list[str]:
        """Texts of about 256 tokens."""
        return [words(self.random, 190) for _ in range(number)]


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a square product of random values, median of ten."""
    side = 8192 if device.type == "cuda" else 1024
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = [timed(lambda: one @ other, device)[0] for _ in range(15)]
    return float(2 * side**3 / statistics.median(times[5:]))


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, result


def draw_pages(folder: Path, count: int) -> list[str]:
    """JPEG files that look like pages of text."""

    def draw(number: int) -> str:
        random = Random(number)
        page = Image.new("RGB", PAGE, "white")
        pen = ImageDraw.Draw(page)
        for line in range(60):
            pen.text((80, 60 + 22 * line), words(random, 16), fill=(random.randrange(90),) * 3)
        path = folder / f"page-{number}.jpg"
        page.save(path, quality=85)
        return str(path)

    with ThreadPoolExecutor() as threads:
        return list(threads.map(draw, range(count)))


def measure(name: str, bench: Bench, work: Callable[[], Any], stats: Callable[[], Stats], count: int) -> str:
    """A row: items and operations a second, and what part of the time no pack was there for the device."""
    before = stats()
    seconds, _ = timed(work, bench.device)
    done = stats() - before
    waited = done.seconds_waiting / max(done.seconds_waiting + done.seconds_running, 1e-9)
    return (
        f"| {name} | {count / seconds:,.1f} | {done.tokens_requested / seconds:,.0f} | {done.flops / seconds / 1e12:,.1f} "
        f"| {done.flops / seconds / bench.rate:.0%} | {waited:.1%} |"
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    ", compiled": {"compiled": True},
    ", fp8": {"dtype": "fp8"},
    ", fp8, compiled": {"dtype": "fp8", "compiled": True},
    ", int8": {"dtype": "int8"},
}


def engine_rows(bench: Bench) -> Iterator[Callable[[], str]]:
    """Ours, as it comes and with each option."""
    shown = [{"image": path} for path in bench.pages]
    texts = bench.texts(bench.count(2000))
    for told, options in OPTIONS.items():
        yield partial(embedding, bench, f"embed {len(shown)} pages{told}", shown, 32, options)
        yield partial(embedding, bench, f"embed {len(texts)} texts of 256 tokens{told}", texts, 200, options)
    yield partial(reranking, bench, "", forget=True)
    yield partial(reranking, bench, ", seen before", forget=False)


def embedding(bench: Bench, name: str, inputs: Sequence[Any], first: int, options: dict[str, Any]) -> str:
    ours = bench.embedder(vision_cache=0, **options)
    ours.embed(inputs[: bench.count(first)])
    return measure(name, bench, partial(ours.embed, inputs), lambda: ours.engine.stats, len(inputs))


def reranking(bench: Bench, told: str, *, forget: bool) -> str:
    ours = Reranker(bench.models / "reranker", device=str(bench.device), dtype=bench.dtype, vision_cache=4 << 30)
    shown = [{"image": path} for path in bench.pages[: bench.count(100)]]
    ours.score("the harbour in winter", shown)
    if forget:
        ours.engine.clear_vision_cache()
    name = f"rerank {len(shown)} pages for a query{told}"
    work = partial(ours.score, "the market by the river", shown)
    return measure(name, bench, work, lambda: ours.engine.stats, len(shown))


def growth(bench: Bench) -> Iterator[Callable[[], str]]:
    """Texts a second by how many are sent at once."""

    def row(count: int) -> str:
        ours = bench.embedder()
        turns = max(1, bench.count(256) // count)
        batches = [bench.texts(count) for _ in range(turns + 1)]
        ours.embed(batches[0])
        seconds, _ = timed(lambda: [ours.embed(batch) for batch in batches[1:]], bench.device)
        return f"| {count:,} | {turns * count / seconds:,.1f} |"

    yield from (partial(row, count) for count in (1, 4, 16, 64, 256, 1024) if count <= bench.count(1024))


def latency(bench: Bench) -> str:
    """A short query through the whole engine, and the model's own forward pass over the same tokens."""
    from qwen3vl.engine.packing import pack_prompts
    from qwen3vl.processing.fitting import fit
    from qwen3vl.processing.templates import PromptContent, embed_prompt

    ours = bench.embedder()
    query = "the lantern by the frozen harbour"
    content: PromptContent[Any] = PromptContent(videos=(), images=(), texts=(query,))
    (pack,) = pack_prompts([fit(embed_prompt(content, ours.instruction), ours.engine.tokenizer, 8192).prompt], 1 << 30)
    ids, positions, wanted, visual = (
        torch.from_numpy(each).to(bench.device)
        for each in (pack.input_ids, pack.position_ids, pack.output_indices, pack.vision_token_indices)
    )

    def bare() -> None:
        with torch.inference_mode():
            ours.engine.model(ids, positions, pack.layout, wanted, visual, None).float().cpu()

    def median(work: Callable[[], Any]) -> float:
        return statistics.median([timed(work, bench.device)[0] for _ in range(60)][10:])

    whole, alone = median(lambda: ours.embed(query)), median(bare)
    return f"| {pack.num_tokens} tokens | {whole * 1e3:.2f} | {alone * 1e3:.2f} | {whole / alone:.2f} |"


def exactness(bench: Bench) -> Iterator[Callable[[], str]]:
    """Cosines of each dtype to float32 on the CPU, the same weights."""
    inputs: list[Any] = [*bench.texts(4), "a short query"]
    for number, path in enumerate(bench.pages[:2]):
        small = Path(path).with_name(f"small-{number}.jpg")
        Image.open(path).crop((0, 0, 512, 384)).save(small)
        inputs.append({"image": small})

    @cache
    def exact() -> Any:
        return Embedder(bench.models / "embedding", device="cpu", dtype="float32").embed(inputs)

    def row(dtype: str, compiled: bool) -> str:
        near = bench.embedder(dtype=dtype, compiled=compiled).embed(inputs)
        cosines = (near * exact()).sum(1)
        return f"| {dtype}{', compiled' if compiled else ''} | {np.min(cosines):.5f} | {np.median(cosines):.5f} |"

    for dtype, compiled in ((bench.dtype, False), (bench.dtype, True), ("fp8", False), ("int8", False)):
        yield partial(row, dtype, compiled)


def rivals(bench: Bench, checkout: Path | None) -> Iterator[Callable[[], str]]:
    """Items a second of others for the same pages and texts; fewer of them, for they take long."""
    pages, texts = bench.pages[: bench.count(48)], bench.texts(bench.count(256))
    yield partial(transformer, bench, f"sentence-transformers, {len(pages)} pages", pages, "image", 8)
    yield partial(transformer, bench, f"sentence-transformers, {len(texts)} texts", texts, "text", 32)
    yield partial(script_embedding, bench, checkout, pages)
    yield partial(script_reranking, bench, checkout, pages)


def rival(bench: Bench, name: str, work: Callable[[Sequence[str]], Any], items: Sequence[str], ours: Any) -> str:
    """A row: what `work` makes of two items is compared with ours, then all are timed."""
    found = np.asarray(work(items[:2]), dtype=np.float32)
    if found.ndim == 2:
        told = f"cosine to ours {float((found * ours).sum(1).min()):.4f}"
    else:
        told = f"largest difference to ours {float(np.abs(found - ours).max()):.3f}"
    seconds, _ = timed(partial(work, items), bench.device)
    return f"| {name} | {len(items) / seconds:,.2f} | {told} |"


def transformer(bench: Bench, name: str, items: Sequence[str], kind: str, batch: int) -> str:
    model = sentence_transformer(bench.models / "embedding", device=str(bench.device)).to(bench.torch_dtype)

    def encode(some: Sequence[str]) -> Any:
        shown = [Image.open(each) for each in some] if kind == "image" else some
        return model.encode([message({"type": kind, kind: each}) for each in shown], batch_size=batch)

    return rival(bench, name, encode, items, bench.embedder().embed([{kind: each} for each in items[:2]]))


def script_embedding(bench: Bench, checkout: Path | None, pages: Sequence[str]) -> str:
    script = scripted(bench, checkout, "qwen3_vl_embedding", "Qwen3VLEmbedder", "embedding")

    def embed(paths: Sequence[str]) -> Any:
        return torch.cat([script.process([{"image": path}]) for path in paths]).float().cpu().numpy()

    name = f"official script, {len(pages)} pages one by one"
    return rival(bench, name, embed, pages, bench.embedder().embed([{"image": path} for path in pages[:2]]))


def script_reranking(bench: Bench, checkout: Path | None, pages: Sequence[str]) -> str:
    script = scripted(bench, checkout, "qwen3_vl_reranker", "Qwen3VLReranker", "reranker")
    query = {"text": "the market by the river"}

    def score(paths: Sequence[str]) -> Any:
        return script.process({"query": query, "documents": [{"image": path} for path in paths]})

    ours = Reranker(bench.models / "reranker", device=str(bench.device), dtype=bench.dtype)
    checked = ours.score(query, [{"image": path} for path in pages[:2]])
    return rival(bench, f"official script, rerank {len(pages)} pages", score, pages, checked)


def scripted(bench: Bench, checkout: Path | None, module: str, name: str, model: str) -> Any:
    """The official class, loaded.  Its reranker needs transformers 4.57 for pictures."""
    if checkout is None:
        raise ValueError("--official names no checkout")
    made = getattr(official(checkout, module), name)
    return made(str(bench.models / model), torch_dtype=bench.torch_dtype, attn_implementation="sdpa")


def each(rows: Iterator[Callable[[], str]], bench: Bench) -> Iterator[str]:
    """The rows; one that fails, or for which there is no time, says so."""
    for row in rows:
        if time.perf_counter() - bench.began > LIMIT:
            yield "| not run: the time is over |"
            continue
        try:
            yield row()
        except Exception as error:  # the other rows are worth having
            yield f"| not run: {type(error).__name__}: {str(error).partition(chr(10))[0][:160]} |"
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def report(bench: Bench, checkout: Path | None) -> Iterator[str]:
    yield f"\n## Full\n\nA matrix product runs at {bench.rate / 1e12:,.1f} TFLOP/s.\n"
    yield "| work | items/s | tokens/s | TFLOP/s | of the product | waiting for input |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    yield from each(engine_rows(bench), bench)
    yield "\n## Others\n\n| work | items/s | answers |\n| --- | ---: | --- |"
    yield from each(rivals(bench, checkout), bench)
    yield "\n## Growth\n\n| texts at once | texts/s |\n| ---: | ---: |"
    yield from each(growth(bench), bench)
    yield "\n## Latency\n\n| query | whole, ms | bare forward pass, ms | times |\n| --- | ---: | ---: | ---: |"
    yield from each(iter([partial(latency, bench)]), bench)
    yield "\n## Exact\n\n| dtype | least cosine to float32 on the CPU | median |\n| --- | ---: | ---: |"
    yield from each(exactness(bench), bench)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="a checkout of the official repository")
    parser.add_argument("--size", default="2B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of items")
    parser.add_argument("--models", type=Path, help="where the checkpoints are kept; else they are made anew")
    parser.add_argument("--out", type=Path, help="a folder for gpu.md, beside what is printed")
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    began = time.perf_counter()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    name = str(dtype).removeprefix("torch.")

    def tell(line: str) -> None:
        print(line, flush=True)
        if options.out:
            with (options.out / "gpu.md").open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    with tempfile.TemporaryDirectory() as scratch:
        models = write(options.models or Path(scratch), options.size, dtype, str(device))
        pages = draw_pages(Path(scratch), max(4, round(240 * options.scale)))
        bench = Bench(models, device, name, options.scale, matrix_rate(device, dtype), pages, Random(1), began)
        tell(f"torch {torch.__version__}, {card}, {options.size}, {name}")
        for line in report(bench, options.official):
            tell(line)
    tell(f"\n{time.perf_counter() - began:.0f} s in all.")


if __name__ == "__main__":
    main()
