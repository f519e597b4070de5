"""No token is computed and no image encoded twice: the engine's statistics, and the vision feature cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file

from qwen3vl import Batch, Embedder, MediaError, MediaPolicy, Reranker
from qwen3vl.engine import Engine, Stats, request_queue
from qwen3vl.engine.vision_cache import SCAN_THRESHOLD, VisionFeatureCache
from qwen3vl.inputs import as_image, as_item, as_video
from qwen3vl.media.images import read_image_header
from qwen3vl.media.source import open_source
from qwen3vl.media.videos import read_video_header
from qwen3vl.model.vision import VisionFeatures
from qwen3vl.processing.fitting import fit
from qwen3vl.processing.templates import embed_prompt, rerank_prompt
from tests.conftest import CASES, resolve
from tests.test_golden import check


@pytest.fixture(autouse=True)
def _one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of a call wait for each other, however slow this machine is at present."""
    monkeypatch.setattr(request_queue, "MAX_BATCH_WAIT_S", 60.0)
    monkeypatch.setattr(request_queue, "MAX_SUBMIT_WAIT_S", 60.0)


def tokenize(engine: Engine, prompts: list[Any]) -> list[tuple[int, ...]]:
    """Return the token ids of prompts, as the engine prepares them."""
    return [tuple(fit(parts, engine.tokenizer, engine.limits.max_length).prompt.ids.tolist()) for parts in prompts]


def count_distinct_prefixes(prompts: list[tuple[int, ...]]) -> int:
    """Return how many tokens have to be computed at least: those that differ or follow different tokens."""
    return len({prompt[:stop] for prompt in prompts for stop in range(1, len(prompt) + 1)})


def test_reranking_computes_each_distinct_token_once(golden_reranker: Reranker) -> None:
    query = "which of these is about the sea?"
    documents = [
        f"document {number}: {'the sea and ' * (number % 7)}a ship of number {number}" for number in range(100)
    ]
    engine = golden_reranker.engine
    content = engine.read_headers(as_item(query))
    instruction = golden_reranker.instruction
    parts = [rerank_prompt(content, engine.read_headers(as_item(document)), instruction) for document in documents]
    prompts = tokenize(engine, parts)
    before = engine.stats
    golden_reranker.score(query, documents)
    done = engine.stats - before
    assert done.items == 100
    assert done.packs == 1
    assert done.tokens_requested == sum(map(len, prompts))
    assert done.tokens_computed == count_distinct_prefixes(prompts)


def test_language_model_gets_distinct_tokens_and_no_padding(golden_embedder: Embedder) -> None:
    """Counted by a hook in the model, not by the engine."""
    texts = [f"{number} is a number{' indeed' * (number % 5)}" for number in range(50)] + ["0 is a number"]
    engine = golden_embedder.engine
    parts = [embed_prompt(engine.read_headers(as_item(text)), golden_embedder.instruction) for text in texts]
    prompts = tokenize(engine, parts)
    num_tokens: list[int] = []
    layer: Any = engine.model.language_model.layers[0]
    hook = layer.mlp.register_forward_hook(lambda _module, args, _output: num_tokens.append(len(args[0])))
    before = engine.stats
    vectors = golden_embedder.embed(texts)
    hook.remove()
    done = engine.stats - before
    assert sum(num_tokens) == done.tokens_computed == count_distinct_prefixes(prompts)
    assert done.tokens_requested == sum(map(len, prompts)) == done.tokens_computed + done.tokens_shared
    np.testing.assert_array_equal(vectors[0], vectors[-1])


def image_forms(path: Path) -> list[Any]:
    """Return one image in every form that an input may have."""
    data = path.read_bytes()
    return [path, str(path), path.as_uri(), data, BytesIO(data), f"{path.parent}/../{path.parent.name}/{path.name}"]


def test_equal_images_are_encoded_once_per_call(checkpoints: Path, media: dict[str, Path], tmp_path: Path) -> None:
    """Whatever their names, with and without a cache."""
    copied = tmp_path / "copy.png"
    shutil.copy(media["odd"], copied)
    images = [*image_forms(media["odd"]), *image_forms(copied)]
    inputs = [{"text": f"caption {number}", "image": image} for number, image in enumerate(images)]
    inputs += [{"text": "another", "image": media["photo"]}] * 3
    for cache_bytes in (None, 0):
        embedder = Embedder(checkpoints / "embedding", device="cpu", vision_cache=cache_bytes)
        embedder.engine.clear_vision_cache()
        vectors = embedder.embed(inputs)
        done = embedder.engine.stats
        assert (done.media_requested, done.media_encoded) == (15, 2)
        np.testing.assert_allclose(vectors, np.vstack([embedder.embed([value]) for value in inputs]), atol=2e-6)
        assert (embedder.engine.stats.media_encoded > 2) is (cache_bytes == 0)


def test_pil_images_are_told_apart_by_their_pixels(checkpoints: Path) -> None:
    """Including the colours of a palette."""
    first, second = (Image.new("P", (64, 64), 0) for _ in range(2))
    first.putpalette([255, 0, 0])
    second.putpalette([0, 0, 255])
    embedder = Embedder(checkpoints / "embedding", device="cpu")
    before = embedder.engine.stats
    red, blue, again = embedder.embed([{"image": image} for image in (first, second, first.convert("RGB"))])
    assert (embedder.engine.stats - before).media_encoded == 2
    assert not np.allclose(red, blue, atol=1e-4)
    np.testing.assert_array_equal(red, again)


def test_features_are_cached_across_calls_within_max_bytes(
    checkpoints: Path, media: dict[str, Path], tmp_path: Path
) -> None:
    reranker = Reranker(checkpoints / "reranker", device="cpu")
    vision_cache = reranker.engine.replicas[0].vision_cache
    vision_cache.clear()
    documents = [{"image": media["odd"]}, {"image": media["photo"]}, {"video": media["clip"]}]
    fresh = reranker.score("first", documents)
    before = reranker.engine.stats
    again = reranker.score("first", documents)
    for query in ("second", "third"):
        reranker.score(query, documents)
    done = reranker.engine.stats - before
    assert (done.media_requested, done.media_encoded) == (9, 0)
    assert done.media_cached == 9
    np.testing.assert_allclose(again, fresh, atol=1e-6)
    # A file that changes is another image.
    changing = tmp_path / "a.png"
    shutil.copy(media["odd"], changing)
    score = reranker.score("q", [{"image": changing}])
    Image.new("RGB", (90, 70), "green").save(changing)
    assert reranker.score("q", [{"image": changing}]) != score
    assert 0 < vision_cache.size_bytes <= vision_cache.max_bytes


def test_file_that_changes_between_header_and_pixels_is_an_error(media: dict[str, Path], tmp_path: Path) -> None:
    """Its features must not be cached under the digest of the former content."""
    path = tmp_path / "a.png"
    shutil.copy(media["odd"], path)
    header = read_image_header(as_image(path), MediaPolicy())
    assert header.load(None).shape == (header.height, header.width, 3)
    Image.new("RGB", (90, 70), "green").save(path)
    with pytest.raises(MediaError, match="changed while it was read"):
        header.load(None)


def test_video_that_changes_between_header_and_frames_is_an_error(media: dict[str, Path], tmp_path: Path) -> None:
    """Its vector would be stored for the former content."""
    path = tmp_path / "a.mp4"
    shutil.copy(media["clip"], path)
    header = read_video_header(as_video(path), MediaPolicy())
    assert len(header.load([0, 1])) == 2
    path.write_bytes(path.read_bytes() + bytes(8))
    assert len(read_video_header(as_video(path), MediaPolicy()).load([0, 1])) == 2
    with pytest.raises(MediaError, match="changed while it was read"):
        header.load([0, 1])


def test_file_that_is_deleted_after_its_pixels_were_read_is_an_error_of_media(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"pixels")
    source = open_source(as_image(path), MediaPolicy())
    path.unlink()
    with pytest.raises(MediaError, match="deleted while it was read"):
        source.require_unchanged()


def test_pixels_are_identified_as_they_are_seen() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    upright, reshaped = Image.fromarray(pixels), Image.fromarray(pixels.reshape(4, 6, 3))
    exif, encoded = Image.Exif(), BytesIO()
    exif[ExifTags.Base.Orientation] = 6  # to be rotated by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(encoded, "PNG", exif=exif)
    first, second, third = (
        read_image_header(as_image(image), MediaPolicy(), exif=True)
        for image in (upright, Image.open(encoded), reshaped)
    )
    np.testing.assert_array_equal(first.load(None), second.load(None))
    assert first.identity == second.identity != third.identity


def test_cache_evicts_the_least_recently_used() -> None:
    vision_cache = VisionFeatureCache(max_bytes=10 * 4 * 8)

    def features(value: float) -> VisionFeatures:
        return VisionFeatures(torch.full((2, 8), value), (torch.full((2, 8), value),))

    for key in range(2):
        vision_cache.put(key, features(float(key)))
    assert vision_cache.size_bytes == 2 * 4 * 8 * 4
    assert vision_cache.get(0) is not None
    vision_cache.put(2, features(2.0))
    assert vision_cache.get(1) is None
    cached = vision_cache.get(0)
    assert cached is not None
    assert float(cached.tokens[0, 0]) == 0
    vision_cache.put("large", VisionFeatures(torch.zeros(100, 8), ()))
    assert vision_cache.get("large") is None
    assert vision_cache.size_bytes <= vision_cache.max_bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])  # each has a layout of its own
def test_models_with_equal_vision_weights_share_tower_and_cache(
    dtype: str, checkpoints: Path, media: dict[str, Path], tmp_path: Path
) -> None:
    """An embedding model and a reranker encode an image once for both."""
    folder = tmp_path / "reranker"
    shutil.copytree(checkpoints / "reranker", folder)
    weights, other = load_file(folder / "model.safetensors"), load_file(checkpoints / "embedding" / "model.safetensors")
    own_score = Reranker(folder, device="cpu", dtype=dtype).score("q", [{"image": media["odd"]}])
    save_file(
        {**weights, **{name: value for name, value in other.items() if "visual" in name}}, folder / "model.safetensors"
    )
    embedder = Embedder(checkpoints / "embedding", device="cpu", dtype=dtype)
    separate = Reranker(checkpoints / "reranker", device="cpu", dtype=dtype)
    assert (separate.engine.model.visual is embedder.engine.model.visual) is all(
        bool((weights[name] == other[name]).all()) for name in weights if "visual" in name
    )
    sharing = Reranker(folder, device="cpu", dtype=dtype)
    assert sharing.engine.model.visual is embedder.engine.model.visual
    embedder.embed([{"image": media["odd"]}])
    score = sharing.score("q", [{"image": media["odd"]}])
    assert sharing.engine.stats.media_encoded == 0
    assert score.shape == own_score.shape


@pytest.mark.parametrize("cache_bytes", [0, 1 << 28])
def test_golden_vectors_with_and_without_cached_features(
    cache_bytes: int, checkpoints: Path, media: dict[str, Path]
) -> None:
    """The official vectors when an image is new, when it is cached, and when nothing is cached."""
    embedder = Embedder(checkpoints / "embedding", device="cpu", vision_cache=cache_bytes)
    names = [name for name, case in CASES["embed"].items() if "image" in case and name != "image-huge"]
    for _ in range(2):
        for name, vector in zip(
            names, embedder.embed([resolve(CASES["embed"][name], media) for name in names]), strict=True
        ):
            check(name, vector)
    assert (embedder.engine.stats.media_cached > 0) is (cache_bytes > 0)


def test_stats_add_and_subtract() -> None:
    stats = Stats(items=1, tokens_requested=5, tokens_computed=3, seconds_running=0.5)
    assert stats + stats == Stats(items=2, tokens_requested=10, tokens_computed=6, seconds_running=1.0)
    assert (stats + stats - stats) == stats
    assert stats.tokens_shared == 2


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("tokens_asked", "tokens_requested"),
        ("pictures_asked", "media_requested"),
        ("pictures_encoded", "media_encoded"),
        ("pictures_kept", "media_cached"),
    ],
)
def test_former_names_of_stats_warn_and_work(former: str, present: str) -> None:
    stats = Stats(tokens_requested=1, media_requested=2, media_encoded=3, media_cached=4)
    with pytest.warns(DeprecationWarning, match=f"use Stats.{present}"):
        assert getattr(stats, former) == getattr(stats, present) > 0


def test_waiting_running_and_flops_are_counted(golden_embedder: Embedder) -> None:
    before = golden_embedder.engine.stats
    golden_embedder.embed(["a", "b"])
    done = golden_embedder.engine.stats - before
    assert done.seconds_running > 0
    assert done.seconds_waiting > 0
    assert done.flops > 2 * done.tokens_computed


def test_batch_counts_the_tokens_of_its_prompts(tiny_embedder: Embedder, tiny_reranker: Reranker) -> None:
    def check_tokens(model: Embedder | Reranker, run: Callable[[], Batch]) -> None:
        before = model.engine.stats
        batch = run()
        assert len(batch.errors) == 1
        assert batch.num_tokens == (model.engine.stats - before).tokens_requested > 0

    check_tokens(tiny_embedder, lambda: tiny_embedder.embed(["a", "", "a b"], on_error="collect"))
    check_tokens(tiny_reranker, lambda: tiny_reranker.score("q", ["a", "", "a b"], on_error="collect"))


def test_mlp_of_the_last_layer_gets_one_token_per_prompt(golden_embedder: Embedder) -> None:
    """Nothing attends to the last layer's output, so it is computed for the prompts' last tokens only."""
    layers: Any = golden_embedder.engine.model.language_model.layers
    num_tokens = [0] * len(layers)

    def count_tokens(index: int) -> Any:
        def count(_module: Any, args: Any, _output: Any) -> None:
            num_tokens[index] += len(args[0])  # a layer may process its rows in blocks

        return layers[index].mlp.register_forward_hook(count)

    hooks = [count_tokens(index) for index in range(len(layers))]
    before = golden_embedder.engine.stats
    golden_embedder.embed([f"text {number}" for number in range(7)])
    done = golden_embedder.engine.stats - before
    for hook in hooks:
        hook.remove()
    assert num_tokens == [done.tokens_computed] * (len(layers) - 1) + [7]


def test_cache_resists_a_scan_until_a_key_comes_again() -> None:
    """Images that never come again are not cached for long; one that does is, and then all are again."""
    features = VisionFeatures(torch.ones(4, 8), (torch.ones(4, 8),))
    vision_cache = VisionFeatureCache(max_bytes=10 * 2 * 4 * 8 * 4)
    for number in range(10 + SCAN_THRESHOLD):
        vision_cache.put(number, features)
    assert vision_cache.size_bytes == 0
    vision_cache.put("first", features)
    assert vision_cache.get("first") is None
    vision_cache.put("first", features)
    assert vision_cache.get("first") is not None
    vision_cache.put("another", features)
    assert vision_cache.get("another") is not None
