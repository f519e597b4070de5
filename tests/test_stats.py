"""Nothing is computed twice: the engine's own accounts, and answers that stay what they are."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from qwen3vl import Embedder, MediaError, MediaPolicy, Reranker
from qwen3vl.engine.stats import Stats
from qwen3vl.engine.vision_cache import SCAN_THRESHOLD, VisionFeatureCache
from qwen3vl.inputs import as_image
from qwen3vl.media.images import read_image_header
from qwen3vl.model.vision import VisionFeatures
from tests.conftest import CASES, resolve
from tests.test_golden import check


def tokens(engine: Any, written: list[Any]) -> list[tuple[int, ...]]:
    """The token ids of prompts, as the engine plans them."""
    from qwen3vl.processing.fitting import fit

    return [tuple(fit(parts, engine.tokenizer, engine.limits.max_length).prompt.ids.tolist()) for parts in written]


def prefixes(prompts: list[tuple[int, ...]]) -> int:
    """Distinct tokens by all that stands before them: what no engine can do without."""
    return len({prompt[:stop] for prompt in prompts for stop in range(1, len(prompt) + 1)})


def test_a_reranking_of_a_hundred(golden_reranker: Reranker) -> None:
    """Tokens computed are the distinct ones."""

    from qwen3vl.inputs import as_item
    from qwen3vl.processing.templates import rerank_prompt

    query = "which of these is about the sea?"
    documents = [
        f"document {number}: {'the sea and ' * (number % 7)}a ship of number {number}" for number in range(100)
    ]
    engine = golden_reranker.engine
    content = engine.read_headers(as_item(query))
    instruction = golden_reranker.instruction
    parts = [rerank_prompt(content, engine.read_headers(as_item(document)), instruction) for document in documents]
    prompts = tokens(engine, parts)
    before = engine.stats
    golden_reranker.score(query, documents)
    done = engine.stats - before
    assert done.items == 100
    assert done.packs == 1
    assert done.tokens_requested == sum(map(len, prompts))
    assert done.tokens_computed == prefixes(prompts)


def test_a_shared_instruction(golden_embedder: Embedder) -> None:
    """Rows of the language model, counted where they pass: the distinct tokens, and no padding."""
    from qwen3vl.inputs import as_item
    from qwen3vl.processing.templates import embed_prompt

    texts = [f"{number} is a number{' indeed' * (number % 5)}" for number in range(50)] + ["0 is a number"]
    engine = golden_embedder.engine
    parts = [embed_prompt(engine.read_headers(as_item(text)), golden_embedder.instruction) for text in texts]
    prompts = tokens(engine, parts)
    rows: list[int] = []
    layer: Any = engine.model.language_model.layers[0]
    hook = layer.mlp.register_forward_hook(lambda _module, given, _result: rows.append(len(given[0])))
    before = engine.stats
    vectors = golden_embedder.embed(texts)
    hook.remove()
    done = engine.stats - before
    assert sum(rows) == done.tokens_computed == prefixes(prompts)
    assert done.tokens_requested == sum(map(len, prompts)) == done.tokens_computed + done.tokens_shared
    np.testing.assert_array_equal(vectors[0], vectors[-1])


def ways(path: Path) -> list[Any]:
    """One picture in every form that it may come in."""
    data = path.read_bytes()
    return [path, str(path), path.as_uri(), data, BytesIO(data), f"{path.parent}/../{path.parent.name}/{path.name}"]


def test_pictures_by_content(checkpoints: Path, media: dict[str, Path], tmp_path: Path) -> None:
    """Encoded once per call and size, whatever they are called, with or without what was kept."""
    copied = tmp_path / "copy.png"
    shutil.copy(media["odd"], copied)
    inputs = [{"text": f"caption {n}", "image": each} for n, each in enumerate([*ways(media["odd"]), *ways(copied)])]
    inputs += [{"text": "another", "image": media["photo"]}] * 3
    for kept in (None, 0):
        embedder = Embedder(checkpoints / "embedding", device="cpu", vision_cache=kept)
        embedder.engine.forget()
        vectors = embedder.embed(inputs)
        done = embedder.engine.stats
        assert (done.media_requested, done.media_encoded) == (15, 2)
        np.testing.assert_allclose(vectors, np.vstack([embedder.embed([each]) for each in inputs]), atol=2e-6)
        assert (embedder.engine.stats.media_encoded > 2) is (kept == 0)


def test_pixels_by_content(checkpoints: Path) -> None:
    """PIL pictures are told apart by what they show, a palette's colours included."""
    first, second = (Image.new("P", (64, 64), 0) for _ in range(2))
    first.putpalette([255, 0, 0])
    second.putpalette([0, 0, 255])
    embedder = Embedder(checkpoints / "embedding", device="cpu")
    before = embedder.engine.stats
    red, blue, again = embedder.embed([{"image": each} for each in (first, second, first.convert("RGB"))])
    assert (embedder.engine.stats - before).media_encoded == 2
    assert not np.allclose(red, blue, atol=1e-4)
    np.testing.assert_array_equal(red, again)


def test_kept_across_calls_and_within_bounds(checkpoints: Path, media: dict[str, Path], tmp_path: Path) -> None:
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
    # A file that changes is another picture.
    changing = tmp_path / "a.png"
    shutil.copy(media["odd"], changing)
    one = reranker.score("q", [{"image": changing}])
    Image.new("RGB", (90, 70), "green").save(changing)
    assert reranker.score("q", [{"image": changing}]) != one
    assert 0 < vision_cache.size <= vision_cache.max_bytes


def test_a_file_that_changes_while_it_is_read(media: dict[str, Path], tmp_path: Path) -> None:
    """Its picture is not kept under the digest of what it was."""
    path = tmp_path / "a.png"
    shutil.copy(media["odd"], path)
    header = read_image_header(as_image(path), MediaPolicy())
    assert header.load().size == (header.width, header.height)
    Image.new("RGB", (90, 70), "green").save(path)
    with pytest.raises(MediaError, match="changed while it was read"):
        header.load()


def test_the_least_recently_used_go_first() -> None:
    import torch

    vision_cache = VisionFeatureCache()
    vision_cache.max_bytes = 10 * 4 * 8

    def features(value: float) -> VisionFeatures:
        return VisionFeatures(torch.full((2, 8), value), (torch.full((2, 8), value),))

    for key in range(2):
        vision_cache.put(key, features(float(key)))
    assert vision_cache.size == 2 * 4 * 8 * 4
    assert vision_cache.get(0) is not None
    vision_cache.put(2, features(2.0))
    assert vision_cache.get(1) is None
    found = vision_cache.get(0)
    assert found is not None
    assert float(found.tokens[0, 0]) == 0
    vision_cache.put("large", VisionFeatures(torch.zeros(100, 8), ()))
    assert vision_cache.get("large") is None
    assert vision_cache.size <= vision_cache.max_bytes


def test_one_tower_where_the_weights_are_equal(checkpoints: Path, media: dict[str, Path], tmp_path: Path) -> None:
    """An embedding model and a reranker with equal vision weights encode a picture once for both."""
    folder = tmp_path / "reranker"
    shutil.copytree(checkpoints / "reranker", folder)
    weights, other = load_file(folder / "model.safetensors"), load_file(checkpoints / "embedding" / "model.safetensors")
    own = Reranker(folder, device="cpu").score("q", [{"image": media["odd"]}])
    save_file(
        {**weights, **{name: value for name, value in other.items() if "visual" in name}}, folder / "model.safetensors"
    )
    embedder = Embedder(checkpoints / "embedding", device="cpu")
    apart = Reranker(checkpoints / "reranker", device="cpu")
    assert (apart.engine.model.visual is embedder.engine.model.visual) is all(
        bool((weights[name] == other[name]).all()) for name in weights if "visual" in name
    )
    together = Reranker(folder, device="cpu")
    assert together.engine.model.visual is embedder.engine.model.visual
    embedder.embed([{"image": media["odd"]}])
    score = together.score("q", [{"image": media["odd"]}])
    assert together.engine.stats.media_encoded == 0
    assert score.shape == own.shape


@pytest.mark.parametrize("kept", [0, 1 << 28])
def test_golden_answers_from_what_is_kept(kept: int, checkpoints: Path, media: dict[str, Path]) -> None:
    """The official vectors when a picture is new, when it is known, and when nothing is kept."""
    embedder = Embedder(checkpoints / "embedding", device="cpu", vision_cache=kept)
    names = [name for name, case in CASES["embed"].items() if "image" in case and name != "image-huge"]
    for _ in range(2):
        for name, vector in zip(
            names, embedder.embed([resolve(CASES["embed"][name], media) for name in names]), strict=True
        ):
            check(name, vector)
    assert (embedder.engine.stats.media_cached > 0) is (kept > 0)


def test_sums() -> None:
    one = Stats(items=1, tokens_requested=5, tokens_computed=3, seconds_running=0.5)
    assert (one + one - one) == one
    assert one.tokens_shared == 2


def test_waiting_and_running(golden_embedder: Embedder) -> None:
    before = golden_embedder.engine.stats
    golden_embedder.embed(["a", "b"])
    done = golden_embedder.engine.stats - before
    assert done.seconds_running > 0
    assert done.seconds_waiting > 0
    assert done.flops > 2 * done.tokens_computed


def test_the_last_layer_goes_on_with_the_wanted_rows(golden_embedder: Embedder) -> None:
    """One row a prompt behind the last layer's attention, as the counted operations say."""
    layers: Any = golden_embedder.engine.model.language_model.layers
    rows = [0] * len(layers)

    def counted(place: int) -> Any:
        def count(_module: Any, given: Any, _result: Any) -> None:
            rows[place] += len(given[0])  # a layer may take them in blocks

        return layers[place].mlp.register_forward_hook(count)

    hooks = [counted(place) for place in range(len(layers))]
    before = golden_embedder.engine.stats
    golden_embedder.embed([f"text {number}" for number in range(7)])
    done = golden_embedder.engine.stats - before
    for hook in hooks:
        hook.remove()
    assert rows == [done.tokens_computed] * (len(layers) - 1) + [7]


def test_keeping_stops_where_it_does_not_pay() -> None:
    """Pictures that never come again are not kept for long; one that does is, and then all are again."""
    import torch

    features = VisionFeatures(torch.ones(4, 8), (torch.ones(4, 8),))
    vision_cache = VisionFeatureCache()
    vision_cache.max_bytes = 10 * 2 * 4 * 8 * 4
    for number in range(10 + SCAN_THRESHOLD):
        vision_cache.put(number, features)
    assert vision_cache.size == 0
    vision_cache.put("first", features)
    assert vision_cache.get("first") is None
    vision_cache.put("first", features)
    assert vision_cache.get("first") is not None
    vision_cache.put("another", features)
    assert vision_cache.get("another") is not None
