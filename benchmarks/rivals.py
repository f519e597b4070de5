r"""The same work by this package and by other implementations, with equal weights and results.

    git clone https://github.com/QwenLM/Qwen3-VL-Embedding official
    uv run --with 'transformers==4.57.3' --with scipy --with sentence-transformers python -m benchmarks.rivals \
        --official official [--cases texts …]

The models have random weights and the true proportions, and run in float32 on the CPU. Results are compared before
anything is timed; then the implementations take turns. Our vision feature cache is empty at the beginning of each turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.models import write
from qwen3vl import Embedder, Reranker

WORDS = (
    "harbour", "ship", "river", "stone", "bridge", "winter", "market", "lantern", "garden", "window", "letter",
    "copper", "forest", "meadow", "thunder", "saddle", "orchard", "glacier", "violin", "pepper", "canvas", "anchor",
    "feather", "island", "morning", "candle", "shelter", "valley", "pocket", "silver",
)  # fmt: skip
Results = list[float] | np.ndarray[Any, Any]
"""Scores or vectors."""


@dataclass(frozen=True, slots=True)
class Case:
    """The same work by several implementations.

    Attributes:
        name: What the table shows.
        ours: Does the work with this package, on the first inputs of the given number, or on all.
        theirs: By name, the same with others.
        prepare: Called before each turn of ours.
        compared: Number of inputs whose results are compared; None compares all.
    """

    name: str
    ours: Callable[[int | None], Results]
    theirs: Mapping[str, Callable[[int | None], Results]]
    prepare: Callable[[], None] = lambda: None
    compared: int | None = None


def random_words(random: Random, count: int) -> str:
    """Return a text of random words.

    Args:
        random: Source of randomness.
        count: Number of words.

    Returns:
        The words, with spaces between them.
    """
    return " ".join(random.choice(WORDS) for _ in range(count))


def draw_image(folder: Path, random: Random, width: int, height: int) -> str:
    """Write a PNG file of random blotches.

    Args:
        folder: Where to write it.
        random: Source of randomness.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        The file's path.
    """
    pixels = np.random.default_rng(random.randrange(1 << 30)).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    path = folder / f"{random.randrange(1 << 40)}.png"
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return str(path)


def official(checkout: Path, name: str) -> Any:
    """Import a module of the official repository.

    Args:
        checkout: The repository's folder.
        name: The module's name.

    Returns:
        The module.
    """
    spec = importlib.util.spec_from_file_location(name, checkout / "src" / "models" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{checkout} is no checkout of the official repository")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def rerank_cases(models: Path, checkout: Path, folder: Path, names: Sequence[str]) -> Iterator[Case]:
    """Yield cases against the official script, which processes pair by pair.

    Args:
        models: Folder of the checkpoints.
        checkout: Folder of the official repository.
        folder: Where images are written.
        names: Names of the cases to run.
    """
    random = Random(3)
    ours = Reranker(models / "reranker", device="cpu")
    uncached = Reranker(models / "reranker", device="cpu", vision_cache=0)
    script = official(checkout, "qwen3_vl_reranker").Qwen3VLReranker(
        str(models / "reranker"), torch_dtype=torch.float32, attn_implementation="sdpa"
    )

    def case(name: str, queries: list[dict[str, str]], documents: list[dict[str, str]]) -> Case:
        def score(reranker: Reranker, count: int | None) -> Results:
            return np.concatenate([reranker.score(query, documents[:count]) for query in queries])

        def run_script(count: int | None) -> Results:
            calls = [{"query": query, "documents": documents[:count]} for query in queries]
            return [value for call in calls for value in script.process(call)]

        theirs: dict[str, Callable[[int | None], Results]] = {"official script": run_script}
        if len(queries) > 1:
            theirs["ours, no cache"] = partial(score, uncached)
        return Case(name, partial(score, ours), theirs, ours.engine.clear_vision_cache, compared=len(documents) // 4)

    if "texts" in names:
        documents = [{"text": random_words(random, 20)} for _ in range(100)]
        yield case("rerank 100 texts of 25 tokens", [{"text": random_words(random, 8)}], documents)
    if "query" in names:
        documents = [{"text": random_words(random, 20)} for _ in range(50)]
        query = {"image": draw_image(folder, random, 1024, 1024)}
        yield case("rerank 50 texts for an image of 1,024 tokens", [query], documents)
    if "pictures" in names:
        images = [{"image": draw_image(folder, random, 640, 640)} for _ in range(20)]
        queries = [{"text": random_words(random, 8)} for _ in range(5)]
        yield case("rerank 20 images of 400 tokens for 5 queries", queries, images)


def embedding_cases(models: Path, folder: Path, names: Sequence[str], count: int) -> Iterator[Case]:
    """Yield cases against sentence-transformers, which sorts by length and pads batches of 32 (images: of 4).

    Args:
        models: Folder of the checkpoints.
        folder: Where images are written.
        names: Names of the cases to run.
        count: Number of texts.
    """
    random = Random(5)
    plain = Embedder(models / "embedding", device="cpu")
    sentence_transformers = sentence_transformer(models / "embedding")
    if "embed" in names:
        texts = [random_words(random, round(8 * 50 ** random.random())) for _ in range(count)]
        messages = [message({"type": "text", "text": text}) for text in texts]
        # What one would choose to embed a collection.
        ours = Embedder(models / "embedding", device="cpu", compiled=True)
        yield Case(
            f"embed {count:,} texts of 10 to 500 tokens, half of them below 75, compiled",
            lambda count: ours.embed(texts[:count]),
            {
                "sentence-transformers": lambda count: np.asarray(sentence_transformers.encode(messages[:count])),
                "ours, not compiled": lambda count: plain.embed(texts[:count]),
            },
            compared=64,
        )
    if "shown" in names:
        paths = [draw_image(folder, random, *random.choice(((512, 512), (512, 768), (896, 640)))) for _ in range(24)]

        def encode_images(count: int | None) -> Results:
            messages = [message({"type": "image", "image": Image.open(path)}) for path in paths[:count]]
            return np.asarray(sentence_transformers.encode(messages, batch_size=4))

        yield Case(
            "embed 24 images of 256 to 560 tokens",
            lambda count: plain.embed([{"image": path} for path in paths[:count]]),
            {"sentence-transformers": encode_images},
            plain.engine.clear_vision_cache,
        )


def message(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an input of sentence-transformers in the chat format of the embedding models.

    Args:
        content: A text or an image, as transformers' processors accept it.

    Returns:
        Messages of the system and the user.
    """
    instruction = {"type": "text", "text": "Represent the user's input."}
    return [{"role": "system", "content": [instruction]}, {"role": "user", "content": [content]}]


def sentence_transformer(folder: Path, **options: Any) -> Any:
    """Load a checkpoint with sentence-transformers' own modules.

    Args:
        folder: The checkpoint.
        **options: Arguments of `SentenceTransformer`.

    Returns:
        A `SentenceTransformer`.
    """
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as parts

    transformer = parts.Transformer(str(folder), processing_kwargs={"chat_template": {"add_generation_prompt": True}})
    # Its own limit is that of the checkpoint's files; the official scripts' is higher.
    transformer.processor.image_processor.size = {"shortest_edge": 4096, "longest_edge": 1_843_200}
    # On transformers 4.57 it leaves all weights random without an error: the checkpoint's names have a prefix.
    weights = load_file(folder / "model.safetensors")
    transformer.auto_model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in weights.items()})
    hidden_size = transformer.auto_model.config.text_config.hidden_size
    modules = [transformer, parts.Pooling(hidden_size, pooling_mode="lasttoken"), parts.Normalize()]
    return SentenceTransformer(modules=modules, **{"device": "cpu", **options})


def time_call(work: Callable[[int | None], Results]) -> float:
    """Return the seconds that the work takes on all inputs.

    Args:
        work: Does the work.

    Returns:
        Seconds.
    """
    began = time.perf_counter()
    work(None)
    return time.perf_counter() - began


def print_row(case: Case, turns: int) -> None:
    """Compare results, time all implementations and print a table row for each of the others.

    Args:
        case: What to run.
        turns: How often each implementation is timed.
    """
    case.prepare()
    our_results = np.asarray(case.ours(case.compared))
    differences = {
        name: float(np.abs(our_results - np.asarray(work(case.compared))).max()) for name, work in case.theirs.items()
    }
    our_times: list[float] = []
    their_times: dict[str, list[float]] = {name: [] for name in case.theirs}
    for _ in range(turns):
        case.prepare()
        our_times.append(time_call(case.ours))
        for name, work in case.theirs.items():
            their_times[name].append(time_call(work))
    for name, seconds in their_times.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(seconds, our_times, strict=True))
        print(
            f"| {case.name} | {name} | {statistics.median(seconds):.2f} | {statistics.median(our_times):.2f} "
            f"| {statistics.median(ratios):.1f} ({ratios[0]:.1f}–{ratios[-1]:.1f}) | {differences[name]:.0e} |",
            flush=True,
        )


def main() -> None:
    """Run the cases that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=["texts", "query", "pictures", "embed", "shown"])
    parser.add_argument("--size", default="small")
    parser.add_argument("--texts", type=int, default=1000, help="number of texts to embed")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--models", type=Path, help="folder that keeps the checkpoints")
    options = parser.parse_args()
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        models = write(options.models or Path(scratch), options.size)
        print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads,")
        print(f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}\n")
        print("| work | against | theirs, s | ours, s | ratio (min–max) | largest difference |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        folder = Path(scratch)
        if set(options.cases) & {"texts", "query", "pictures"}:
            for case in rerank_cases(models, options.official, folder, options.cases):
                print_row(case, options.turns)
        if set(options.cases) & {"embed", "shown"}:
            for case in embedding_cases(models, folder, options.cases, options.texts):
                print_row(case, options.turns)


if __name__ == "__main__":
    main()
