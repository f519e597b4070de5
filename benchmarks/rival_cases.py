"""What `benchmarks.rivals` measures: the same work by this package and by others."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.inputs import draw_image, random_words
from benchmarks.rival_models import message, official, sentence_transformer
from benchmarks.vllm_side import IMAGE, VllmModel, embedding_prompt, reranking_prompt
from qwen3vl import Embedder, Reranker

NUM_CLIENTS, TEXTS_PER_CLIENT = 64, 4
Results = list[float] | np.ndarray[Any, Any]
"""Scores or vectors."""
Work = Callable[[int | None], Results]
"""Does the work on the first inputs of the given number, or on all."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all cases use.

    Attributes:
        models: Folder of the checkpoints.
        folder: Where images are written.
        names: Names of the cases to run.
        num_texts: Number of texts to embed.
        official: Folder of the official repository, if there is one.
        vllm: Interpreter of an environment with vLLM, if there is one.
    """

    models: Path
    folder: Path
    names: Sequence[str]
    num_texts: int
    official: Path | None
    vllm: Path | None


@dataclass(frozen=True, slots=True)
class Case:
    """The same work by several implementations.

    Attributes:
        name: What the table shows.
        ours: Does the work with this package.
        theirs: By name, does the same with others.
        prepare: Called before each turn; empties caches.
        compared: Number of inputs whose results are compared; None compares all.
    """

    name: str
    ours: Work
    theirs: Mapping[str, Work]
    prepare: Callable[[], None] = lambda: None
    compared: int | None = None


@contextmanager
def started_vllm(bench: Bench, name: str, images: int) -> Iterator[VllmModel | None]:
    """Run a checkpoint in vLLM for the duration of a block, or nothing where no interpreter was named.

    Args:
        bench: What all cases use.
        name: Name of the checkpoint.
        images: Number of images that a prompt may have, 0 or 1.

    Yields:
        The model.
    """
    if bench.vllm is None:
        yield None
        return
    folder, threads = bench.models / name, torch.get_num_threads()
    with VllmModel(bench.vllm, folder, reranker=name == "reranker", images=images, threads=threads) as model:
        yield model


@dataclass(frozen=True, slots=True)
class Rerankers:
    """The rerankers of this process.

    Attributes:
        ours: This package's.
        uncached: The same without a vision cache.
        script: The official script's, if there is one.
    """

    ours: Reranker
    uncached: Reranker
    script: Any

    def case(
        self, name: str, queries: list[dict[str, str]], documents: list[dict[str, str]], vllm: VllmModel | None = None
    ) -> Case:
        """Return a case in which each query is compared with all documents.

        Args:
            name: What the table shows.
            queries: Queries; a single one where there is `vllm`.
            documents: Documents; texts where there is `vllm`.
            vllm: The reranker in vLLM, if it takes part.
        """

        def score(reranker: Reranker, count: int | None) -> Results:
            return np.concatenate([reranker.score(query, documents[:count]) for query in queries])

        def run_script(count: int | None) -> Results:
            calls = [{"query": query, "documents": documents[:count]} for query in queries]
            return [value for call in calls for value in self.script.process(call)]

        def run_vllm(vllm: VllmModel, count: int | None) -> Results:
            (query,) = queries
            prompts = [reranking_prompt(query.get("text", IMAGE), document["text"]) for document in documents[:count]]
            return vllm(prompts, query.get("image"))

        def prepare() -> None:
            self.ours.engine.clear_vision_cache()
            if vllm:
                vllm.reset()

        theirs: dict[str, Work] = {}
        if self.script:
            theirs["official script"] = run_script
        if vllm:
            theirs[vllm.name] = partial(run_vllm, vllm)
        if len(queries) > 1:
            theirs["ours, no cache"] = partial(score, self.uncached)
        return Case(name, partial(score, self.ours), theirs, prepare, compared=len(documents) // 4)


def rerank_cases(bench: Bench) -> Iterator[Case]:
    """Yield cases against the official script, which processes pair by pair, and against vLLM.

    Args:
        bench: What all cases use.
    """
    random = Random(3)
    folder = bench.models / "reranker"
    script = None
    if bench.official:
        script_class = official(bench.official, "qwen3_vl_reranker").Qwen3VLReranker
        script = script_class(str(folder), torch_dtype=torch.float32, attn_implementation="sdpa")
    rerankers = Rerankers(Reranker(folder, device="cpu"), Reranker(folder, device="cpu", vision_cache=0), script)
    if "texts" in bench.names:
        documents = [{"text": random_words(random, 20)} for _ in range(100)]
        query = {"text": random_words(random, 8)}
        with started_vllm(bench, "reranker", images=0) as vllm:
            yield rerankers.case("rerank 100 texts of 25 tokens", [query], documents, vllm)
    if "query" in bench.names:
        documents = [{"text": random_words(random, 20)} for _ in range(50)]
        query = {"image": draw_image(bench.folder, random, 1024, 1024)}
        with started_vllm(bench, "reranker", images=1) as vllm:
            yield rerankers.case("rerank 50 texts for an image of 1,024 tokens", [query], documents, vllm)
    if "pictures" in bench.names:
        images = [{"image": draw_image(bench.folder, random, 640, 640)} for _ in range(20)]
        queries = [{"text": random_words(random, 8)} for _ in range(5)]
        yield rerankers.case("rerank 20 images of 400 tokens for 5 queries", queries, images)


def embedding_cases(bench: Bench, vllm: VllmModel | None) -> Iterator[Case]:
    """Yield cases against sentence-transformers, which sorts by length and pads batches of 32 (images: of 4), and vLLM.

    Args:
        bench: What all cases use.
        vllm: The embedding model in vLLM, if there is one.
    """
    random = Random(5)
    plain = Embedder(bench.models / "embedding", device="cpu")
    sentence_transformers: Any = None
    if importlib.util.find_spec("sentence_transformers"):
        sentence_transformers = sentence_transformer(bench.models / "embedding")
    if "embed" in bench.names:
        texts = [random_words(random, round(8 * 50 ** random.random())) for _ in range(bench.num_texts)]
        messages = [message({"type": "text", "text": text}) for text in texts]
        prompts = [embedding_prompt(text) for text in texts]
        # What one would choose to embed a collection.
        ours = Embedder(bench.models / "embedding", device="cpu", compiled=True)
        theirs: dict[str, Work] = {"ours, not compiled": lambda count: plain.embed(texts[:count])}
        if sentence_transformers:
            theirs["sentence-transformers"] = lambda count: np.asarray(sentence_transformers.encode(messages[:count]))
        if vllm:
            theirs[vllm.name] = lambda count: vllm(prompts[:count])
        yield Case(
            f"embed {len(texts):,} texts of 10 to 500 tokens, half of them below 75, compiled",
            lambda count: ours.embed(texts[:count]),
            theirs,
            vllm.reset if vllm else lambda: None,
            compared=64,
        )
    if "clients" in bench.names and vllm:
        yield clients_case(random, plain, vllm)
    if "shown" in bench.names and sentence_transformers:
        sizes = ((512, 512), (512, 768), (896, 640))
        paths = [draw_image(bench.folder, random, *random.choice(sizes)) for _ in range(24)]

        def encode_images(count: int | None) -> Results:
            messages = [message({"type": "image", "image": Image.open(path)}) for path in paths[:count]]
            return np.asarray(sentence_transformers.encode(messages, batch_size=4))

        yield Case(
            "embed 24 images of 256 to 560 tokens",
            lambda count: plain.embed([{"image": path} for path in paths[:count]]),
            {"sentence-transformers": encode_images},
            plain.engine.clear_vision_cache,
        )


def clients_case(random: Random, embedder: Embedder, vllm: VllmModel) -> Case:
    """Return a case of clients that each wait for one answer before they ask again.

    This package answers a thread for each client. vLLM gets the texts of all clients in one call, round by round, which
    is the best that such clients can give it.

    Args:
        random: Source of randomness.
        embedder: This package's model.
        vllm: The same in vLLM.
    """
    texts = [random_words(random, 8) for _ in range(NUM_CLIENTS * TEXTS_PER_CLIENT)]

    def ours(count: int | None) -> Results:
        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            return np.concatenate(list(pool.map(lambda text: embedder.embed([text]), texts[:count])))

    def theirs(count: int | None) -> Results:
        prompts = [embedding_prompt(text) for text in texts[:count]]
        rounds = [prompts[start : start + NUM_CLIENTS] for start in range(0, len(prompts), NUM_CLIENTS)]
        return np.concatenate([vllm(prompts) for prompts in rounds])

    name = f"embed {TEXTS_PER_CLIENT} texts of 8 words for each of {NUM_CLIENTS} clients"
    return Case(name, ours, {f"{vllm.name}, clients in one call": theirs}, vllm.reset, compared=NUM_CLIENTS)
