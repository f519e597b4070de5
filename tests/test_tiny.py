"""The shipped tiny pair, and that its recipe still runs."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from qwen3vl import Embedder, Reranker
from qwen3vl.demo.scenes import BACKGROUNDS, COLOURS, Clip, Scene, near_miss
from qwen3vl.model.hub import resolve_checkpoint
from tools.tiny import embedding, reading, reranker
from tools.tiny.data import held_out_clips, held_out_scenes
from tools.tiny.judge import embed_clips, recall


def test_files_are_small() -> None:
    for kind in ("embedding", "reranker"):
        files = list(resolve_checkpoint("tiny", kind).folder.iterdir())
        assert {"config.json", "tokenizer.json", "model.safetensors"} <= {file.name for file in files}
        assert max(file.stat().st_size for file in files) < 5_000_000


def test_pictures_are_found_by_words_never_seen(tiny_embedder: Embedder) -> None:
    random = Random(1)
    scenes = held_out_scenes(31, 200)
    words = tiny_embedder.embed([scene.caption(random.randrange(3)) for scene in scenes])
    pictures = tiny_embedder.embed([scene.draw(random) for scene in scenes])
    assert recall(words @ pictures.T, 1) >= 0.95
    assert recall(words @ pictures.T, 5) >= 0.99
    assert recall(words[:, :32] @ pictures[:, :32].T, 1) >= 0.93


def test_clips_are_found_by_words_never_seen(tiny_embedder: Embedder) -> None:
    random = Random(2)
    clips = held_out_clips(32, 40)
    words = tiny_embedder.embed([clip.caption() for clip in clips])
    scores = words @ embed_clips(tiny_embedder, clips, random).T
    assert recall(scores, 1) >= 0.85
    assert recall(scores, 5) >= 0.97


def test_reranker_says_no_to_strangers(tiny_reranker: Reranker) -> None:
    random = Random(3)
    scenes = held_out_scenes(33, 60)
    scores = []
    for number, scene in enumerate(scenes):
        shown = [scene, near_miss(scene, random), scenes[number - 7]]
        scores.append(tiny_reranker.score(scene.caption(), [{"image": each.draw(random)} for each in shown]))
    match, near, stranger = np.array(scores).T
    assert (stranger < 0.5).mean() >= 0.93
    assert (match > 0.5).mean() >= 0.93
    assert (match > near).mean() >= 0.88


def test_held_out_does_not_depend_on_the_telling() -> None:
    for scene in held_out_scenes(5, 20):
        assert Scene(scene.things[::-1], 2).key == scene.key
        assert held_out_scenes(5, 20)[0] == held_out_scenes(5, 20)[0]
    assert all(isinstance(clip, Clip) for clip in held_out_clips(5, 3))


def test_labels_lie_on_what_they_name() -> None:
    """A clip's labelled tokens show the colour that they are said to show, in the middle of the token."""
    random = Random(4)
    for clip in held_out_clips(6, 20):
        frames = clip.frames(random, [index / (reading.CLIP_FRAMES - 1) for index in range(reading.CLIP_FRAMES)])
        for token, known in reading.shown(clip).items():
            pair, row, column = token // 144, token % 144 // 12, token % 12
            box = (column * 8 - 6, row * 8 - 6, column * 8 + 14, row * 8 + 14)
            crops = [np.array(frame.crop(box)).reshape(-1, 3) for frame in frames[2 * pair : 2 * pair + 2]]
            near = {tuple(pixel) for pixel in np.concatenate(crops).tolist()}
            if known.colour == reading.UNKNOWN:
                assert near == {BACKGROUNDS[clip.background]}
            else:
                assert list(COLOURS.values())[known.colour] in near


def test_the_recipe_runs(tmp_path: Path) -> None:
    """One step of each stage, from nothing to two checkpoints that load."""
    embedding.train(tmp_path / "embedding", steps=1, vision_steps=1)
    vector = Embedder(tmp_path / "embedding", device="cpu").embed("a red circle on the left")[0]
    assert np.isfinite(vector).all()
    reranker.train(tmp_path / "reranker", tmp_path / "embedding", steps=1)
    (score,) = Reranker(tmp_path / "reranker", device="cpu").score("a red circle", ["a red circle"])
    assert 0 < score < 1
