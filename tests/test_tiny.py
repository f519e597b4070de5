"""The tiny models that ship with the package, and the training that made them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import pytest

from qwen3vl import Embedder, Reranker
from qwen3vl.demo.scenes import BACKGROUNDS, COLOURS, Clip, Scene, near_miss
from qwen3vl.model.hub import resolve_checkpoint
from qwen3vl.processing.tokenizer import Tokenizer
from tools.tiny import embedding, reranker
from tools.tiny.data import held_out_clips, held_out_scenes, is_held_out
from tools.tiny.evaluation import embed_clips, recall
from tools.tiny.probes import CLIP_FRAMES, UNKNOWN, vision_labels
from tools.tiny.reranker_batches import CLIPS_PER_GROUP, NUM_CLIP_GROUPS, draw_pairs, resembling_clip


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
def test_checkpoint_is_complete_and_below_5_mb_per_file(kind: Literal["embedding", "reranker"]) -> None:
    files = list(resolve_checkpoint("tiny", kind).folder.iterdir())
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {file.name for file in files}
    assert max(file.stat().st_size for file in files) < 5_000_000


def test_recall_of_images_by_unseen_captions(tiny_embedder: Embedder) -> None:
    random = Random(1)
    scenes = held_out_scenes(31, 200)
    captions = tiny_embedder.embed([scene.caption(random.randrange(3)) for scene in scenes])
    images = tiny_embedder.embed([scene.draw(random) for scene in scenes])
    assert recall(captions @ images.T, 1) >= 0.95
    assert recall(captions @ images.T, 5) >= 0.99
    assert recall(captions[:, :32] @ images[:, :32].T, 1) >= 0.93


def test_recall_of_videos_by_unseen_captions(tiny_embedder: Embedder) -> None:
    random = Random(2)
    clips = held_out_clips(32, 40)
    captions = tiny_embedder.embed([clip.caption() for clip in clips])
    scores = captions @ embed_clips(tiny_embedder, clips, random).T
    assert recall(scores, 1) >= 0.85
    assert recall(scores, 5) >= 0.97


def test_reranker_accepts_matches_and_rejects_other_scenes(tiny_reranker: Reranker) -> None:
    random = Random(3)
    scenes = held_out_scenes(33, 60)
    scores = []
    for number, scene in enumerate(scenes):
        documents = [scene, near_miss(scene, random), scenes[number - 7]]
        images = [{"image": document.draw(random)} for document in documents]
        scores.append(tiny_reranker.score(scene.caption(), images))
    match, near, other = np.array(scores).T
    assert (other < 0.5).mean() >= 0.93
    assert (match > 0.5).mean() >= 0.93
    assert (match > near).mean() >= 0.88


def test_each_caption_of_a_group_of_clips_has_one_match_among_all() -> None:
    tokenizer = Tokenizer(resolve_checkpoint("tiny", "reranker").folder / "tokenizer.json")
    pairs, samples = draw_pairs(tokenizer, Random(6), near_miss_share=0.75, mix="clips")
    clip_pairs = [pair for pair in pairs if pair.task == "text to clip"]
    assert len(clip_pairs) == NUM_CLIP_GROUPS["clips"] * CLIPS_PER_GROUP**2
    assert len({pair.prompt.spans[0].key for pair in clip_pairs}) == NUM_CLIP_GROUPS["clips"] * CLIPS_PER_GROUP
    assert {pair.prompt.spans[0].key for pair in pairs if pair.prompt.spans} <= {s.vision.key for s in samples}
    # Training takes the matches in the order of the queries.
    assert [pair.query for pair in pairs if pair.is_match] == list(range(pairs[-1].query + 1))


def test_a_resembling_clip_has_its_still_thing_beside_the_track() -> None:
    random = Random(7)
    for clip in held_out_clips(35, 20):
        for _ in range(20):
            other = resembling_clip(clip, random)
            assert other.still is None or divmod(other.still.position, 3)[other.direction // 2] != other.track


def test_key_ignores_order_and_background() -> None:
    scenes = held_out_scenes(5, 20)
    assert scenes == held_out_scenes(5, 20)
    for scene in scenes:
        assert Scene(scene.things[::-1], 2).key == scene.key
    assert all(isinstance(clip, Clip) for clip in held_out_clips(5, 3))


def test_held_out_split_is_that_of_the_shipped_models() -> None:
    """One combination in ten; the captions pin which ones, since another split would leak training data."""
    assert [scene.caption() for scene in held_out_scenes(31, 2)] == [
        "a cyan triangle at the top left and a purple ring at the bottom right and a green star on the left",
        "a green triangle on the left and a cyan ring at the bottom right",
    ]
    assert all(map(is_held_out, held_out_scenes(31, 50)))


def test_vision_labels_name_the_colour_drawn_there() -> None:
    """The middle of each labelled token has the colour of its label, or only the background if it has none."""
    random = Random(4)
    for clip in held_out_clips(6, 20):
        frames = clip.frames(random, [index / (CLIP_FRAMES - 1) for index in range(CLIP_FRAMES)])
        for token, label in vision_labels(clip).items():
            pair, row, column = token // 144, token % 144 // 12, token % 12
            box = (column * 8 - 6, row * 8 - 6, column * 8 + 14, row * 8 + 14)
            crops = [np.array(frame.crop(box)).reshape(-1, 3) for frame in frames[2 * pair : 2 * pair + 2]]
            colours = {tuple(pixel) for pixel in np.concatenate(crops).tolist()}
            if label.colour == UNKNOWN:
                assert colours == {BACKGROUNDS[clip.background]}
            else:
                assert list(COLOURS.values())[label.colour] in colours


@pytest.mark.slow
def test_training_writes_checkpoints_that_load(tmp_path: Path) -> None:
    """One step of each stage, from nothing to two checkpoints."""
    embedding.train(tmp_path / "embedding", steps=1, vision_steps=1)
    vector = Embedder(tmp_path / "embedding", device="cpu").embed("a red circle on the left")[0]
    assert np.isfinite(vector).all()
    reranker.train(tmp_path / "reranker", tmp_path / "embedding", steps=1)
    (score,) = Reranker(tmp_path / "reranker", device="cpu").score("a red circle", ["a red circle"])
    assert 0 < score < 1
