"""Rows of `benchmarks.gpu` about other implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_common import Bench, time_call
from benchmarks.rival_models import message, official, sentence_transformer
from qwen3vl import Reranker


def rival_rows(bench: Bench, checkout: Path | None) -> Iterator[Callable[[], str]]:
    """Yield functions that each measure and return a row: another implementation, with fewer items as it takes longer.

    Args:
        bench: The benchmark.
        checkout: Folder of the official repository, if there is one.
    """
    pages, texts = bench.pages[: bench.scaled(48)], bench.texts(bench.scaled(256))
    yield partial(sentence_transformers_row, bench, f"sentence-transformers, {len(pages)} pages", pages, "image", 8)
    yield partial(sentence_transformers_row, bench, f"sentence-transformers, {len(texts)} texts", texts, "text", 32)
    yield partial(official_embedding_row, bench, checkout, pages)
    yield partial(official_reranking_row, bench, checkout, pages)


def rival_row(bench: Bench, name: str, work: Callable[[Sequence[str]], Any], items: Sequence[str], ours: Any) -> str:
    """Compare the results of two items with ours, then time all items.

    Args:
        bench: The benchmark.
        name: What the row is about.
        work: Embeds or scores items.
        items: The items.
        ours: Our results of the first two items.

    Returns:
        The row.
    """
    theirs = np.asarray(work(items[:2]), dtype=np.float32)
    if theirs.ndim == 2:
        comparison = f"cosine to ours {float((theirs * ours).sum(1).min()):.4f}"
    else:
        comparison = f"largest difference to ours {float(np.abs(theirs - ours).max()):.3f}"
    seconds, _ = time_call(partial(work, items), bench.device)
    return f"| {name} | {len(items) / seconds:,.2f} | {comparison} |"


def sentence_transformers_row(bench: Bench, name: str, items: Sequence[str], kind: str, batch_size: int) -> str:
    """Embed with sentence-transformers.

    Args:
        bench: The benchmark.
        name: What the row is about.
        items: Texts, or paths of images.
        kind: `"text"` or `"image"`.
        batch_size: Number of items in a batch.

    Returns:
        The row.
    """
    model = sentence_transformer(bench.models / "embedding", device=str(bench.device)).to(bench.torch_dtype)

    def encode(items: Sequence[str]) -> Any:
        contents = [Image.open(path) for path in items] if kind == "image" else items
        return model.encode([message({"type": kind, kind: content}) for content in contents], batch_size=batch_size)

    return rival_row(bench, name, encode, items, bench.embedder().embed([{kind: item} for item in items[:2]]))


def official_embedding_row(bench: Bench, checkout: Path | None, pages: Sequence[str]) -> str:
    """Embed pages with the official script.

    Args:
        bench: The benchmark.
        checkout: Folder of the official repository, if there is one.
        pages: Paths of images.

    Returns:
        The row.
    """
    script = load_official(bench, checkout, "qwen3_vl_embedding", "Qwen3VLEmbedder", "embedding")

    def embed(paths: Sequence[str]) -> Any:
        return torch.cat([script.process([{"image": path}]) for path in paths]).float().cpu().numpy()

    name = f"official script, {len(pages)} pages one by one"
    return rival_row(bench, name, embed, pages, bench.embedder().embed([{"image": path} for path in pages[:2]]))


def official_reranking_row(bench: Bench, checkout: Path | None, pages: Sequence[str]) -> str:
    """Rerank pages with the official script.

    Args:
        bench: The benchmark.
        checkout: Folder of the official repository, if there is one.
        pages: Paths of images.

    Returns:
        The row.
    """
    script = load_official(bench, checkout, "qwen3_vl_reranker", "Qwen3VLReranker", "reranker")
    query = {"text": "the market by the river"}

    def score(paths: Sequence[str]) -> Any:
        return script.process({"query": query, "documents": [{"image": path} for path in paths]})

    ours = Reranker(bench.models / "reranker", device=str(bench.device), dtype=bench.dtype)
    our_scores = ours.score(query, [{"image": path} for path in pages[:2]])
    return rival_row(bench, f"official script, rerank {len(pages)} pages", score, pages, our_scores)


def load_official(bench: Bench, checkout: Path | None, module: str, name: str, model: str) -> Any:
    """Load a model with the official script. Its reranker needs transformers 4.57 for images.

    Args:
        bench: The benchmark.
        checkout: Folder of the official repository, if there is one.
        module: Name of the script.
        name: Name of its class.
        model: Name of the checkpoint.

    Returns:
        An object of the class.

    Raises:
        ValueError: There is no checkout.
    """
    if checkout is None:
        raise ValueError("--official names no checkout")
    model_class = getattr(official(checkout, module), name)
    return model_class(str(bench.models / model), torch_dtype=bench.torch_dtype, attn_implementation="sdpa")
