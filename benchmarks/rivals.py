r"""The same work by this package and by others, weights and answers being equal.

    git clone https://github.com/QwenLM/Qwen3-VL-Embedding official
    uv run --with 'transformers==4.57.3' --with scipy --with sentence-transformers python -m benchmarks.rivals \
        --official official [--cases texts …]

A randomly initialised model of the true proportions, float32 on the CPU.  Answers are compared before anything is
timed; then all sides take turns.  Ours has nothing kept of pictures when its turn begins.
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
Answers = list[float] | np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """The same work by each side, on the first so many inputs or all.  `prepare` is called before each turn of ours."""

    name: str
    ours: Callable[[int | None], Answers]
    theirs: Mapping[str, Callable[[int | None], Answers]]
    prepare: Callable[[], None] = lambda: None
    compared: int | None = None
    """Inputs whose answers are compared."""


def words(random: Random, count: int) -> str:
    return " ".join(random.choice(WORDS) for _ in range(count))


def picture(folder: Path, random: Random, width: int, height: int) -> str:
    pixels = np.random.default_rng(random.randrange(1 << 30)).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    path = folder / f"{random.randrange(1 << 40)}.png"
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return str(path)


def official(checkout: Path, name: str) -> Any:
    """A module of the official checkout."""
    found = importlib.util.spec_from_file_location(name, checkout / "src" / "models" / f"{name}.py")
    if found is None or found.loader is None:
        raise SystemExit(f"{checkout} is no checkout of the official repository")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def rerankings(models: Path, checkout: Path, folder: Path, names: Sequence[str]) -> Iterator[Case]:
    """Against the official script, which takes pair by pair."""
    random = Random(3)
    ours = Reranker(models / "reranker", device="cpu")
    alone = Reranker(models / "reranker", device="cpu", vision_cache=0)
    script = official(checkout, "qwen3_vl_reranker").Qwen3VLReranker(
        str(models / "reranker"), torch_dtype=torch.float32, attn_implementation="sdpa"
    )

    def case(name: str, queries: list[dict[str, str]], documents: list[dict[str, str]]) -> Case:
        def by(reranker: Reranker, count: int | None) -> Answers:
            return np.concatenate([reranker.score(query, documents[:count]) for query in queries])

        def scripted(count: int | None) -> Answers:
            asked = [{"query": query, "documents": documents[:count]} for query in queries]
            return [score for each in asked for score in script.process(each)]

        theirs: dict[str, Callable[[int | None], Answers]] = {"official script": scripted}
        if len(queries) > 1:
            theirs["ours, nothing kept"] = partial(by, alone)
        return Case(name, partial(by, ours), theirs, ours.engine.clear_vision_cache, compared=len(documents) // 4)

    if "texts" in names:
        documents = [{"text": words(random, 20)} for _ in range(100)]
        yield case("rerank 100 texts of 25 tokens", [{"text": words(random, 8)}], documents)
    if "query" in names:
        documents = [{"text": words(random, 20)} for _ in range(50)]
        query = {"image": picture(folder, random, 1024, 1024)}
        yield case("rerank 50 texts for a picture of 1,024 tokens", [query], documents)
    if "pictures" in names:
        shown = [{"image": picture(folder, random, 640, 640)} for _ in range(20)]
        queries = [{"text": words(random, 8)} for _ in range(5)]
        yield case("rerank 20 pictures of 400 tokens for 5 queries", queries, shown)


def embeddings(models: Path, folder: Path, names: Sequence[str], count: int) -> Iterator[Case]:
    """Against sentence-transformers, which sorts by length and makes batches of 32 (pictures: of 4, for memory)."""
    random = Random(5)
    plain = Embedder(models / "embedding", device="cpu")
    rival = sentence_transformer(models / "embedding")
    if "embed" in names:
        texts = [words(random, round(8 * 50 ** random.random())) for _ in range(count)]
        messages = [message({"type": "text", "text": text}) for text in texts]
        # As who embeds a collection would have it.
        ours = Embedder(models / "embedding", device="cpu", compiled=True)
        yield Case(
            f"embed {count:,} texts of 10 to 500 tokens, half of them below 75, compiled",
            lambda count: ours.embed(texts[:count]),
            {
                "sentence-transformers": lambda count: np.asarray(rival.encode(messages[:count])),
                "ours, not compiled": lambda count: plain.embed(texts[:count]),
            },
            compared=64,
        )
    if "shown" in names:
        shown = [picture(folder, random, *random.choice(((512, 512), (512, 768), (896, 640)))) for _ in range(24)]

        def seen(count: int | None) -> Answers:
            messages = [message({"type": "image", "image": Image.open(path)}) for path in shown[:count]]
            return np.asarray(rival.encode(messages, batch_size=4))

        yield Case(
            "embed 24 pictures of 256 to 560 tokens",
            lambda count: plain.embed([{"image": path} for path in shown[:count]]),
            {"sentence-transformers": seen},
            plain.engine.clear_vision_cache,
        )


def message(content: dict[str, Any]) -> list[dict[str, Any]]:
    """An input of sentence-transformers in the frame of the embedding models."""
    told = {"type": "text", "text": "Represent the user's input."}
    return [{"role": "system", "content": [told]}, {"role": "user", "content": [content]}]


def sentence_transformer(folder: Path, **options: Any) -> Any:
    """The checkpoint as sentence-transformers' own modules for it would have it."""
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as parts

    transformer = parts.Transformer(str(folder), processing_kwargs={"chat_template": {"add_generation_prompt": True}})
    # Its own limit is that of the checkpoint's files; the official scripts' is higher.
    transformer.processor.image_processor.size = {"shortest_edge": 4096, "longest_edge": 1_843_200}
    # On transformers 4.57 it leaves all weights random without an error: the checkpoint's names have a prefix.
    weights = load_file(folder / "model.safetensors")
    transformer.auto_model.load_state_dict({name.removeprefix("model."): each for name, each in weights.items()})
    width = transformer.auto_model.config.text_config.hidden_size
    modules = [transformer, parts.Pooling(width, pooling_mode="lasttoken"), parts.Normalize()]
    return SentenceTransformer(modules=modules, **{"device": "cpu", **options})


def timed(work: Callable[[int | None], Answers]) -> float:
    began = time.perf_counter()
    work(None)
    return time.perf_counter() - began


def run(case: Case, turns: int) -> None:
    case.prepare()
    ours = np.asarray(case.ours(case.compared))
    differences = {
        name: float(np.abs(ours - np.asarray(work(case.compared))).max()) for name, work in case.theirs.items()
    }
    own: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in case.theirs}
    for _ in range(turns):
        case.prepare()
        own.append(timed(case.ours))
        for name, work in case.theirs.items():
            others[name].append(timed(work))
    for name, seconds in others.items():
        times = sorted(theirs / mine for theirs, mine in zip(seconds, own, strict=True))
        print(
            f"| {case.name} | {name} | {statistics.median(seconds):.2f} | {statistics.median(own):.2f} "
            f"| {statistics.median(times):.1f} ({times[0]:.1f}–{times[-1]:.1f}) | {differences[name]:.0e} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=["texts", "query", "pictures", "embed", "shown"])
    parser.add_argument("--size", default="small")
    parser.add_argument("--texts", type=int, default=1000, help="how many are embedded")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--models", type=Path, help="where the checkpoints are kept; else they are made anew")
    options = parser.parse_args()
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        models = write(options.models or Path(scratch), options.size)
        print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads,")
        print(f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}\n")
        print("| work | against | theirs, s | ours, s | times (least–most) | largest difference |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        pictures = Path(scratch)
        if set(options.cases) & {"texts", "query", "pictures"}:
            for case in rerankings(models, options.official, pictures, options.cases):
                run(case, options.turns)
        if set(options.cases) & {"embed", "shown"}:
            for case in embeddings(models, pictures, options.cases, options.texts):
                run(case, options.turns)


if __name__ == "__main__":
    main()
