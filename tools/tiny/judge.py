"""Judges the tiny pair on scenes, clips and captions never seen in training, through the package itself."""

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
from qwen3vl.demo.scenes import Clip, Scene, near_miss
from qwen3vl.inputs import Input
from qwen3vl.model.hub import TINY_MAX_PIXELS
from tools.tiny.data import held_out_clips, held_out_scenes

CANDIDATES = 500


def recall(scores: NDArray[np.float32], most: int) -> float:
    """How often row i's own column i is among the `most` largest."""
    better = (scores > np.diagonal(scores)[:, None]).sum(axis=1)
    return round(float((better < most).mean()), 3)


def cut(vectors: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    short = vectors[:, :dimension]
    return np.asarray(short / np.linalg.norm(short, axis=1, keepdims=True), dtype=np.float32)


def lookalikes(scenes: Sequence[Scene], random: Random) -> list[Scene]:
    """Each scene followed by three near-misses; no two in all of them are the same."""
    gallery: list[Scene] = []
    known = {scene.key for scene in scenes}
    for scene in scenes:
        gallery.append(scene)
        while len(gallery) % 4:
            other = near_miss(scene, random)
            if other.key not in known:
                known.add(other.key)
                gallery.append(other)
    return gallery


def judge_embedding(folder: Path, seed: int = 99) -> dict[str, float]:
    random = Random(seed)
    embedder = Embedder(folder, max_pixels=TINY_MAX_PIXELS)
    scenes = held_out_scenes(seed, CANDIDATES)
    words = embedder.embed([scene.caption(random.randrange(3)) for scene in scenes])
    pictures = embedder.embed([scene.draw(random) for scene in scenes])
    figures: dict[str, float] = {}
    for dimension in (128, 64, 32):
        scores = cut(words, dimension) @ cut(pictures, dimension).T
        figures[f"text to picture, {dimension}: recall@1"] = recall(scores, 1)
        figures[f"text to picture, {dimension}: recall@5"] = recall(scores, 5)
    figures["picture to text: recall@1"] = recall(pictures @ words.T, 1)
    again = embedder.embed([Scene(each.things, (each.background + 1) % 3).draw(random) for each in scenes])
    figures["picture to picture: recall@1"] = recall(again @ pictures.T, 1)
    gallery = lookalikes(scenes[: CANDIDATES // 4], random)
    alike = embedder.embed([scene.draw(random) for scene in gallery])
    asked = embedder.embed([scene.caption(random.randrange(3)) for scene in gallery])
    figures["look-alikes: recall@1"] = recall(asked @ alike.T, 1)
    figures["look-alikes: recall@5"] = recall(asked @ alike.T, 5)
    clips = held_out_clips(seed, CANDIDATES)
    asked = embedder.embed([clip.caption(random.randrange(2)) for clip in clips])
    shown = embed_clips(embedder, clips, random)
    figures["text to clip: recall@1"] = recall(asked @ shown.T, 1)
    figures["text to clip: recall@5"] = recall(asked @ shown.T, 5)
    return figures


def embed_clips(embedder: Embedder, clips: Sequence[Clip], random: Random) -> NDArray[np.float32]:
    """The clips as files, as a user has them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.mp4" for number in range(len(clips))]
        for path, clip in zip(paths, clips, strict=True):
            write_clip(path, clip, random)
        return embedder.embed([{"video": path} for path in paths])


def judge_reranker(folder: Path, base: Path, seed: int = 98, count: int = 200) -> dict[str, float]:
    random = Random(seed)
    reranker = Reranker(folder, max_pixels=TINY_MAX_PIXELS)
    scenes = held_out_scenes(seed, count)
    others = [scenes[(number + 7) % count] for number in range(count)]
    misses = [near_miss(scene, random) for scene in scenes]
    captions = [scene.caption(random.randrange(3)) for scene in scenes]

    def scores(queries: Sequence[Input], documents: Sequence[Input]) -> NDArray[np.float32]:
        pairs = zip(queries, documents, strict=True)
        return np.array([reranker.score(query, [document])[0] for query, document in pairs])

    def draw(shown: Sequence[Scene]) -> list[Input]:
        return [{"image": scene.draw(random)} for scene in shown]

    match, stranger = scores(captions, draw(scenes)), scores(captions, draw(others))
    near = scores(captions, draw(misses))
    pictures = draw(scenes)
    told, other_told = scores(pictures, captions), scores(pictures, [scene.caption() for scene in others])
    near_told = scores(pictures, [scene.caption(random.randrange(3)) for scene in misses])
    figures = {
        "yes to the match (picture)": float((match > 0.5).mean()),
        "no to a stranger (picture)": float((stranger < 0.5).mean()),
        "match above near-miss (picture)": float((match > near).mean()),
        "yes to the match (caption)": float((told > 0.5).mean()),
        "no to a stranger (caption)": float((other_told < 0.5).mean()),
        "match above near-miss (caption)": float((told > near_told).mean()),
    }
    gallery = lookalikes(held_out_scenes(seed + 1, CANDIDATES // 4), random)
    shown = draw(gallery)
    asked = [scene.caption(random.randrange(3)) for scene in gallery]
    embedder = Embedder(base, max_pixels=TINY_MAX_PIXELS)
    similar = embedder.embed(asked) @ embedder.embed(shown).T
    before, after = [], []
    for number in range(len(gallery)):
        top = np.argsort(-similar[number], kind="stable")[:20]
        ranked = reranker.rank(asked[number], [shown[index] for index in top])
        before.append(top[0] == number)
        after.append(top[ranked[0].index] == number)
    figures["look-alikes, by vectors: recall@1"] = float(np.mean(before))
    figures["look-alikes, top 20 reranked: recall@1"] = float(np.mean(after))
    return {name: round(value, 3) for name, value in figures.items()}


def main(folder: Path, what: str) -> None:
    figures: dict[str, float] = {}
    if what != "reranker":
        figures |= judge_embedding(folder / "embedding")
    if what != "embedding":
        figures |= judge_reranker(folder / "reranker", folder / "embedding")
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
