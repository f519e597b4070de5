"""Evaluation of the tiny models, through the package, on scenes and clips of the held-out split.

Near-misses, here and in training, are not checked against the split, so some combinations occur in both.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from qwen3vl import Embedder, Reranker
from qwen3vl.demo.library import write_clip
from qwen3vl.demo.scenes import Clip, Scene, near_miss, near_miss_clip
from qwen3vl.inputs import Input
from qwen3vl.settings import TINY_MAX_PIXELS
from tools.tiny.data import held_out_clips, held_out_scenes

NUM_CANDIDATES = 500
NUM_RERANKED = 20


def recall(scores: NDArray[np.float32], k: int) -> float:
    """Compute recall@k of queries whose matching document has the same index.

    Args:
        scores: Scores of queries and documents, (n, n), float32.
        k: How many documents count as found.

    Returns:
        The share of rows i in which fewer than k columns have a larger score than column i (ties count as found),
        rounded to three digits.
    """
    num_better = (scores > np.diagonal(scores)[:, None]).sum(axis=1)
    return round(float((num_better < k).mean()), 3)


def truncate(vectors: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Cut vectors to their first values and normalize them.

    Args:
        vectors: (n, hidden_size), float32.
        dimension: The number of values.

    Returns:
        (n, dimension), float32, each of length 1.
    """
    short = vectors[:, :dimension]
    return np.asarray(short / np.linalg.norm(short, axis=1, keepdims=True), dtype=np.float32)


def with_near_misses(scenes: Sequence[Scene], random: Random) -> list[Scene]:
    """Follow each scene by three near-misses.

    Args:
        scenes: The scenes; no two may show the same.
        random: The source of randomness.

    Returns:
        Each scene followed by its three near-misses. No two of all these scenes show the same. The near-misses may
        belong to the training split.
    """
    gallery: list[Scene] = []
    keys = {scene.key for scene in scenes}
    for scene in scenes:
        gallery.append(scene)
        while len(gallery) % 4:
            other = near_miss(scene, random)
            if other.key not in keys:
                keys.add(other.key)
                gallery.append(other)
    return gallery


def write_clips(folder: Path, clips: Sequence[Clip], random: Random) -> list[Path]:
    """Write clips to MP4 files.

    Args:
        folder: An existing folder, for these clips only.
        clips: What the videos show.
        random: The source of randomness of the drawing.

    Returns:
        The files, in the order of the clips.
    """
    paths = [folder / f"{number}.mp4" for number in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        write_clip(path, clip, random)
    return paths


def embed_clips(embedder: Embedder, clips: Sequence[Clip], random: Random) -> NDArray[np.float32]:
    """Write clips to MP4 files and embed these.

    Args:
        embedder: The model.
        clips: What the videos show.
        random: The source of randomness of the drawing.

    Returns:
        Vectors, (n, hidden_size), float32.
    """
    with tempfile.TemporaryDirectory() as folder:
        return embedder.embed([{"video": path} for path in write_clips(Path(folder), clips, random)])


def evaluate_embedding(folder: Path, seed: int = 99) -> dict[str, float]:
    """Evaluate an embedding model.

    Args:
        folder: The checkpoint.
        seed: Seed of the drawing.

    Returns:
        Recall by task: text to image at three dimensions, image to text, image to image (redrawn before another
        background), among near-misses, and text to clip.
    """
    random = Random(seed)
    embedder = Embedder(folder, max_pixels=TINY_MAX_PIXELS)
    scenes = held_out_scenes(seed, NUM_CANDIDATES)
    caption_vectors = embedder.embed([scene.caption(random.randrange(3)) for scene in scenes])
    image_vectors = embedder.embed([scene.draw(random) for scene in scenes])
    metrics: dict[str, float] = {}
    for dimension in (128, 64, 32):
        scores = truncate(caption_vectors, dimension) @ truncate(image_vectors, dimension).T
        metrics[f"text to image, {dimension}: recall@1"] = recall(scores, 1)
        metrics[f"text to image, {dimension}: recall@5"] = recall(scores, 5)
    metrics["image to text: recall@1"] = recall(image_vectors @ caption_vectors.T, 1)
    redrawn_vectors = embedder.embed([Scene(scene.things, (scene.background + 1) % 3).draw(random) for scene in scenes])
    metrics["image to image: recall@1"] = recall(redrawn_vectors @ image_vectors.T, 1)
    gallery = with_near_misses(scenes[: NUM_CANDIDATES // 4], random)
    image_vectors = embedder.embed([scene.draw(random) for scene in gallery])
    caption_vectors = embedder.embed([scene.caption(random.randrange(3)) for scene in gallery])
    metrics["near-misses: recall@1"] = recall(caption_vectors @ image_vectors.T, 1)
    metrics["near-misses: recall@5"] = recall(caption_vectors @ image_vectors.T, 5)
    clips = held_out_clips(seed, NUM_CANDIDATES)
    caption_vectors = embedder.embed([clip.caption(random.randrange(2)) for clip in clips])
    video_vectors = embed_clips(embedder, clips, random)
    metrics["text to clip: recall@1"] = recall(caption_vectors @ video_vectors.T, 1)
    metrics["text to clip: recall@5"] = recall(caption_vectors @ video_vectors.T, 5)
    return metrics


def evaluate_reranker(folder: Path, embedding: Path, seed: int = 98, count: int = 200) -> dict[str, float]:
    """Evaluate a reranker.

    Args:
        folder: The checkpoint.
        embedding: The embedding model whose nearest hits it reranks.
        seed: Seed of the drawing.
        count: Number of scenes of the pairwise metrics, more than 7. Recall is always measured on
            `NUM_CANDIDATES // 4` other scenes and their near-misses.

    Returns:
        The share of right answers of each pairwise metric (a score above 0.5 is a yes), and recall@1 by vectors and
        after reranking the `NUM_RERANKED` nearest.
    """
    random = Random(seed)
    reranker = Reranker(folder, max_pixels=TINY_MAX_PIXELS)
    scenes = held_out_scenes(seed, count)
    mismatches = [scenes[(number + 7) % count] for number in range(count)]
    misses = [near_miss(scene, random) for scene in scenes]
    captions = [scene.caption(random.randrange(3)) for scene in scenes]

    def score(queries: Sequence[Input], documents: Sequence[Input]) -> NDArray[np.float32]:
        pairs = zip(queries, documents, strict=True)
        return np.array([reranker.score(query, [document])[0] for query, document in pairs])

    def draw(drawn: Sequence[Scene]) -> list[Input]:
        return [{"image": scene.draw(random)} for scene in drawn]

    match_scores_by_caption, other_scores_by_caption = score(captions, draw(scenes)), score(captions, draw(mismatches))
    miss_scores_by_caption = score(captions, draw(misses))
    images = draw(scenes)
    match_scores_by_image = score(images, captions)
    other_scores_by_image = score(images, [scene.caption() for scene in mismatches])
    miss_scores_by_image = score(images, [scene.caption(random.randrange(3)) for scene in misses])
    metrics = {
        "yes to the match (image)": float((match_scores_by_caption > 0.5).mean()),
        "no to another scene (image)": float((other_scores_by_caption < 0.5).mean()),
        "match above near-miss (image)": float((match_scores_by_caption > miss_scores_by_caption).mean()),
        "yes to the match (caption)": float((match_scores_by_image > 0.5).mean()),
        "no to another scene (caption)": float((other_scores_by_image < 0.5).mean()),
        "match above near-miss (caption)": float((match_scores_by_image > miss_scores_by_image).mean()),
    }
    gallery = with_near_misses(held_out_scenes(seed + 1, NUM_CANDIDATES // 4), random)
    images = draw(gallery)
    queries = [scene.caption(random.randrange(3)) for scene in gallery]
    embedder = Embedder(embedding, max_pixels=TINY_MAX_PIXELS)
    by_vectors, reranked = rerank_nearest(embedder, reranker, queries, images)
    metrics["near-misses, by vectors: recall@1"] = by_vectors
    metrics[f"near-misses, top {NUM_RERANKED} reranked: recall@1"] = reranked
    clips = held_out_clips(seed, count // 2)
    captions = [clip.caption(random.randrange(2)) for clip in clips]
    clip_misses = [near_miss_clip(clip, random) for clip in clips]
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_clips(Path(scratch), [*clips, *clip_misses], random)
        videos: list[Input] = [{"video": path} for path in paths]
        matches, misses_drawn = videos[: len(clips)], videos[len(clips) :]
        match_scores, miss_scores = score(captions, matches), score(captions, misses_drawn)
        metrics["yes to the match (clip)"] = float((match_scores > 0.5).mean())
        metrics["no to another clip"] = float((score(captions, matches[7:] + matches[:7]) < 0.5).mean())
        metrics["match above near-miss (clip)"] = float((match_scores > miss_scores).mean())
        by_vectors, reranked = rerank_nearest(embedder, reranker, captions, matches)
    metrics["clips, by vectors: recall@1"] = by_vectors
    metrics[f"clips, top {NUM_RERANKED} reranked: recall@1"] = reranked
    return {name: round(value, 3) for name, value in metrics.items()}


def rerank_nearest(
    embedder: Embedder, reranker: Reranker, queries: Sequence[Input], documents: Sequence[Input]
) -> tuple[float, float]:
    """Rerank the `NUM_RERANKED` documents nearest to each query.

    Args:
        embedder: The model whose vectors find the nearest documents.
        reranker: The model that scores them.
        queries: The queries.
        documents: The documents; each query's match has the same index.

    Returns:
        Recall@1 by vectors and after reranking.
    """
    similarities = embedder.embed(queries) @ embedder.embed(documents).T
    hits_by_vectors, hits_reranked = [], []
    for number, query in enumerate(queries):
        nearest = np.argsort(-similarities[number], kind="stable")[:NUM_RERANKED]
        ranked = reranker.rank(query, [documents[index] for index in nearest])
        hits_by_vectors.append(nearest[0] == number)
        hits_reranked.append(nearest[ranked[0].index] == number)
    return float(np.mean(hits_by_vectors)), float(np.mean(hits_reranked))


def print_evaluation(folder: Path, models: str) -> None:
    """Evaluate checkpoints and print the metrics as JSON.

    Args:
        folder: A folder with the checkpoints `embedding` and `reranker`.
        models: `"both"`, `"embedding"` or `"reranker"`.
    """
    metrics: dict[str, float] = {}
    if models != "reranker":
        metrics |= evaluate_embedding(folder / "embedding")
    if models != "embedding":
        metrics |= evaluate_reranker(folder / "reranker", folder / "embedding")
    sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
