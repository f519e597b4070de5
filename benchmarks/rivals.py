r"""How long the official scripts and sentence-transformers take for the same work, answers and weights being equal.

    git clone https://github.com/QwenLM/Qwen3-VL-Embedding official
    uv run --with 'transformers==4.57.3' --with scipy --with sentence-transformers python -m benchmarks.rivals \
        --official official [--cases texts …]

A randomly initialised model of the true proportions, float32 on the CPU.  Both sides take turns; answers are compared
before anything is timed.  `ours, cold` forgets what it has seen before each turn.
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
from collections.abc import Callable
from dataclasses import dataclass
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
PROMPT = (
    "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
Answers = list[float] | np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """The same work by each side: functions without arguments."""

    name: str
    ours: Callable[[], Answers]
    theirs: Callable[[], Answers]
    forget: Callable[[], None]


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


def cases(models: Path, checkout: Path, folder: Path, names: list[str], count: int) -> list[Case]:
    """The cases that were asked for; models are loaded for those only."""
    random = Random(3)
    made: list[Case] = []
    if set(names) & {"texts", "query", "pictures"}:
        ours = Reranker(models / "reranker", device="cpu")
        theirs = official(checkout, "qwen3_vl_reranker").Qwen3VLReranker(
            str(models / "reranker"), torch_dtype=torch.float32, attn_implementation="sdpa"
        )

        def case(name: str, pairs: list[tuple[dict[str, str], list[dict[str, str]]]]) -> Case:
            return Case(
                name,
                lambda: np.concatenate([ours.score(query, documents) for query, documents in pairs]),
                lambda: [
                    score
                    for query, documents in pairs
                    for score in theirs.process({"query": query, "documents": documents})
                ],
                ours.engine.forget,
            )

        if "texts" in names:
            documents = [{"text": words(random, 20)} for _ in range(100)]
            made.append(case("rerank 100 texts of about 25 tokens", [({"text": words(random, 8)}, documents)]))
        if "query" in names:
            query = {"image": picture(folder, random, 1024, 1024)}
            documents = [{"text": words(random, 20)} for _ in range(50)]
            made.append(case("rerank 50 texts for a picture of 1,024 tokens", [(query, documents)]))
        if "pictures" in names:
            shown = [{"image": picture(folder, random, 512, 512)} for _ in range(20)]
            queries = [{"text": words(random, 8)} for _ in range(5)]
            made.append(case("rerank 20 pictures of 256 tokens for 5 queries", [(query, shown) for query in queries]))
    if "embed" in names:
        embedder = Embedder(models / "embedding", device="cpu")
        reference = official(checkout, "qwen3_vl_embedding").Qwen3VLEmbedder(
            str(models / "embedding"), torch_dtype=torch.float32, attn_implementation="sdpa"
        )
        texts = [{"text": words(random, random.randrange(8, 400))} for _ in range(64)]

        def batches() -> Answers:
            """In batches of 8, in their order: the script takes one batch at a time."""
            parts = [reference.process(texts[start : start + 8]) for start in range(0, len(texts), 8)]
            return torch.cat(parts).numpy()

        made.append(Case("embed 64 texts of 10 to 500 tokens", lambda: embedder.embed(texts), batches, lambda: None))
    if "sentences" in names:
        made.append(sentence_transformers(models, count))
    return made


def sentence_transformers(models: Path, count: int) -> Case:
    """Texts of 10 to 500 tokens; both sides sort them and make batches as they like."""
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as parts

    folder = models / "embedding"
    transformer = parts.Transformer(str(folder))
    # On transformers 4.57 it leaves all weights random without an error: the checkpoint's names have a prefix.
    weights = load_file(folder / "model.safetensors")
    transformer.auto_model.load_state_dict({name.removeprefix("model."): each for name, each in weights.items()})
    width = transformer.auto_model.config.text_config.hidden_size
    rival = SentenceTransformer(
        modules=[transformer, parts.Pooling(width, pooling_mode="lasttoken"), parts.Normalize()], device="cpu"
    )
    random = Random(5)
    texts = [words(random, random.randrange(8, 400)) for _ in range(count)]
    embedder = Embedder(folder, device="cpu")
    return Case(
        f"embed {count} texts of 10 to 500 tokens (sentence-transformers)",
        lambda: embedder.embed(texts),
        lambda: np.asarray(rival.encode([PROMPT.format(text) for text in texts])),
        lambda: None,
    )


def timed(work: Callable[[], Answers]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run(case: Case, turns: int) -> None:
    difference = float(np.abs(np.asarray(case.ours()) - np.asarray(case.theirs())).max())
    seconds: dict[str, list[float]] = {"theirs": [], "cold": [], "again": []}
    for _ in range(turns):
        seconds["theirs"].append(timed(case.theirs))
        case.forget()
        seconds["cold"].append(timed(case.ours))
        seconds["again"].append(timed(case.ours))
    theirs, cold, again = (statistics.median(seconds[name]) for name in ("theirs", "cold", "again"))
    spread = "–".join(f"{theirs_ / cold_:.1f}" for theirs_, cold_ in sorted_pairs(seconds["theirs"], seconds["cold"]))
    print(
        f"| {case.name} | {theirs:.2f} | {cold:.2f} | {again:.2f} | {theirs / cold:.1f} ({spread}) "
        f"| {difference:.1e} |",
        flush=True,
    )


def sorted_pairs(theirs: list[float], ours: list[float]) -> list[tuple[float, float]]:
    """The pairs of turns with the least and the largest ratio."""
    pairs = sorted(zip(theirs, ours, strict=True), key=lambda pair: pair[0] / pair[1])
    return [pairs[0], pairs[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=["texts", "query", "pictures", "embed", "sentences"])
    parser.add_argument("--size", default="small")
    parser.add_argument("--texts", type=int, default=1000, help="how many sentence-transformers embeds")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--models", type=Path, help="where the checkpoints are kept; else they are made anew")
    options = parser.parse_args()
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        models = write(options.models or Path(scratch), options.size)
        print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads,")
        print(f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}\n")
        print("| work | rival, s | ours, s | again, s | times (least–most) | largest difference |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for case in cases(models, options.official, Path(scratch), options.cases, options.texts):
            run(case, options.turns)


if __name__ == "__main__":
    main()
