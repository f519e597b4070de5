"""`Embedder(url)` and `Reranker(url)`: the values, errors and notices of an engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qwen3vl_server import SERVER_POLICY, create_app

from qwen3vl import BatchError, Embedder, InputError, MediaPolicy, Reranker
from tests.conftest import CASES, REFERENCE, resolve
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer
from tests.test_errors import INVALID_INPUTS
from tests.test_golden import check

EMBED = list(CASES["embed"])
RERANK = [name for name, case in CASES["rerank"].items() if "checkpoint" not in case]


@pytest.fixture(scope="module")
def embedder(golden_server: ModelServer) -> Iterator[Embedder]:
    with Embedder(golden_server.url) as embedder:
        yield embedder


@pytest.fixture(scope="module")
def reranker(golden_server: ModelServer) -> Iterator[Reranker]:
    with Reranker(golden_server.url) as reranker:
        yield reranker


@pytest.mark.parametrize("seed", [1, 2])
def test_golden_vectors_of_one_call_in_any_order(seed: int, embedder: Embedder, media: dict[str, Path]) -> None:
    names = Random(seed).sample(EMBED, len(EMBED))
    vectors = embedder.embed([resolve(CASES["embed"][name], media) for name in names])
    assert vectors.dtype == np.float32
    assert vectors.flags.writeable
    for name, vector in zip(names, vectors, strict=True):
        check(name, vector)


def test_golden_vectors_of_concurrent_calls(embedder: Embedder, media: dict[str, Path]) -> None:
    async def embed_all() -> list[Any]:
        return await asyncio.gather(*(embedder.aembed(resolve(CASES["embed"][name], media)) for name in EMBED))

    with ThreadPoolExecutor(8) as threads:
        of_threads = threads.map(lambda name: embedder.embed(resolve(CASES["embed"][name], media)), EMBED)
        for name, (vector,), (awaited,) in zip(EMBED, of_threads, asyncio.run(embed_all()), strict=True):
            check(name, vector)
            check(name, awaited)


@pytest.mark.parametrize("name", RERANK)
def test_golden_scores(name: str, reranker: Reranker, media: dict[str, Path]) -> None:
    case = CASES["rerank"][name]
    query, instruction = resolve(case["query"], media), case.get("instruction")
    documents = [resolve(document, media) for document in case["documents"]]
    expected = np.array(REFERENCE["rerank"][name]["scores"])

    async def score_each() -> list[Any]:
        calls = (reranker.ascore(query, [document], instruction=instruction) for document in documents)
        return [scores[0] for scores in await asyncio.gather(*calls)]

    for scores in (
        reranker.score(query, documents, instruction=instruction),
        reranker.score(query, documents[::-1], instruction=instruction)[::-1],
        asyncio.run(score_each()),
    ):
        np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)


def test_recipe_is_that_of_an_engine_here(
    embedder: Embedder, reranker: Reranker, golden_server: ModelServer, golden_reranker: Reranker, checkpoints: Path
) -> None:
    settings: dict[str, Any] = {"dimensions": 24, "instruction": "Find shapes"}
    with (
        Embedder(golden_server.url, **settings) as remote,
        Embedder(checkpoints / "embedding", device="cpu", **settings) as local,
    ):
        assert remote.recipe.digest == local.recipe.digest != embedder.recipe.digest
        assert (remote.dimension, remote.instruction) == (24, "Find shapes.")
        texts: list[Any] = ["a red circle", {"text": "ein blauer Stern", "instruction": "Find stars"}]
        assert_close(remote.embed(texts), local.embed(texts))
        assert_close(remote.embed(texts, instruction="Others"), local.embed(texts, instruction="Others"))
    assert reranker.recipe.digest == golden_reranker.recipe.digest
    assert reranker.instruction == golden_reranker.instruction
    assert isinstance(embedder, Embedder)


def test_media_of_every_type(
    embedder: Embedder, golden_embedder: Embedder, media: dict[str, Path], library_folder: Path
) -> None:
    photo, clip, slides = media["photo"], media["clip"], library_folder / "slides.pdf"
    image, palette = Image.open(photo), Image.open(media["palette"])
    frames = np.random.default_rng(1).integers(0, 255, (7, 64, 96, 3), dtype=np.uint8)
    inputs: list[Any] = [
        *(photo, image, np.asarray(image), photo.read_bytes(), BytesIO(photo.read_bytes())),
        *({"image": str(photo)}, {"image": photo.as_uri()}, {"image": [photo, palette, image.convert("RGBA")]}),
        *({"image": image.convert("L")}, {"image": image.convert("CMYK")}, palette),
        *({"video": f"{clip}#t=1,3.5"}, {"video": clip.read_bytes(), "fps": 4, "max_frames": 6}, clip),
        *(frames, {"video": list(frames), "max_frames": 5, "text": "seven frames"}, {"video": [[photo] * 3, [photo]]}),
        *({"image": f"{slides}#page=2"}, {"image": [f"{slides}#page=1", photo], "text": ["two", "texts"]}),
    ]
    assert_close(embedder.embed(inputs), golden_embedder.embed(inputs))


def test_frames_are_sampled_and_rotated_as_in_an_engine_here(checkpoints: Path, media: dict[str, Path]) -> None:
    rotated = Image.open(media["photo"]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = BytesIO()
    rotated.save(encoded, "JPEG", exif=exif)
    image = Image.open(BytesIO(encoded.getvalue()))
    frames = [Image.new("RGB", (64, 64), (number, 0, 0)) for number in range(9)]
    inputs: list[Any] = [image, encoded.getvalue(), {"video": frames}]
    settings: dict[str, Any] = {"device": "cpu", "exif": True, "max_frames": 5}
    served = Embedder(checkpoints / "embedding", policy=SERVER_POLICY, **settings)
    with (
        served,
        ModelServer(create_app(embedder=served)) as server,
        Embedder(checkpoints / "embedding", **settings) as local,
        Embedder(server.url, exif=True, max_frames=5) as remote,
    ):
        assert remote.recipe.digest == local.recipe.digest
        assert_close(remote.embed(inputs), local.embed(inputs))


def described(batch: Any) -> list[Any]:
    return [(error.index, error.source, error.reason, type(error.__cause__)) for error in batch.errors]


def test_errors_of_items_are_those_of_an_engine_here(
    embedder: Embedder,
    reranker: Reranker,
    golden_embedder: Embedder,
    golden_reranker: Reranker,
    media: dict[str, Path],
    tmp_path: Path,
) -> None:
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(media["photo"].read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    inputs: list[Any] = [
        "before",
        *(value for value, _ in INVALID_INPUTS),
        *(truncated, tmp_path / "gone.png", tmp_path, tmp_path / "empty.png"),
        {"image": [media["photo"], truncated], "text": "the second one is broken"},
        {"image": "http://127.0.0.1:9/photo.png"},
        {"video": [media["photo"], tmp_path / "gone.png"]},
        {"video": f"{media['clip']}#t=100,200"},
        {"image": media["photo"]},
    ]
    remote = embedder.embed(inputs, on_error="collect")
    local = golden_embedder.embed(inputs, on_error="collect")
    assert described(remote) == described(local)
    assert len(remote.errors) == len(inputs) - 2
    assert_close(remote.values[[0, -1]], local.values[[0, -1]])
    with pytest.raises(BatchError) as caught:
        embedder.embed(inputs)
    assert len(caught.value.errors) == len(remote.errors)
    remote = reranker.score("a query", inputs, on_error="collect")
    assert described(remote) == described(golden_reranker.score("a query", inputs, on_error="collect"))
    ranked = reranker.rank("a query", inputs[-3:], on_error="collect")
    assert [document.index for document in ranked] == [2, 0, 1]


def test_errors_of_queries_are_those_of_an_engine_here(
    reranker: Reranker, golden_reranker: Reranker, media: dict[str, Path], tmp_path: Path
) -> None:
    broken, truncated = tmp_path / "broken.png", tmp_path / "truncated.png"
    broken.write_bytes(media["photo"].read_bytes()[:20])
    truncated.write_bytes(media["photo"].read_bytes()[:60])
    for query in ("", {"image": broken}, {"image": tmp_path / "gone.png"}, {"image": [media["photo"], broken]}):
        messages = []
        for model in (reranker, golden_reranker):
            with pytest.raises(InputError, match="the query") as caught:
                model.score(query, ["a document"])
            with pytest.raises(InputError) as awaited:
                asyncio.run(model.ascore(query, ["a document"]))
            assert str(caught.value) == str(awaited.value)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
    documents: list[Any] = ["a document", media["photo"]]  # the query is at fault, but only its pixels are broken
    remote, local = (model.score(truncated, documents, on_error="collect") for model in (reranker, golden_reranker))
    assert described(remote) == described(local)
    assert {error.source for error in remote.errors} == {str(truncated)}


def test_notices_and_tokens(
    embedder: Embedder, golden_embedder: Embedder, reranker: Reranker, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = ["short", "long " * 9000, ""]
    remote, local = (model.embed(inputs, on_error="collect") for model in (embedder, golden_embedder))
    assert remote.notices == local.notices != {}
    assert remote.num_tokens == local.num_tokens
    messages = [record.message for record in caplog.records if record.name == "qwen3vl.client.answers"]
    assert messages == [f"item 1 (text {'long ' * 7 + 'long…'!r}): {local.notices[1]}"]
    assert reranker.score("a", [], on_error="collect").values.shape == (0,)
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_policy_of_the_caller_decides_what_is_read(
    golden_server: ModelServer, media: dict[str, Path], tmp_path: Path
) -> None:
    policy = MediaPolicy(folders=(tmp_path,), max_bytes=50_000, max_pixels=10_000, max_frames=3, urls=False)
    inside = tmp_path / "inside.png"
    inside.write_bytes(media["square"].read_bytes())
    large = Image.effect_noise((200, 200), 50)
    inputs: list[Any] = [
        {"image": inside},
        {"image": media["photo"]},
        {"image": large},
        {"image": np.random.default_rng(1).bytes(60_000)},
        {"video": [inside] * 4},
        {"image": "https://example.com/a.png"},
    ]
    with Embedder(golden_server.url, policy=policy) as embedder:
        batch = embedder.embed(inputs, on_error="collect")
        assert embedder.policy is policy
    reasons = ("outside the folders", "MediaPolicy.max_pixels", "MediaPolicy.max_bytes", "max_frames", "allow URLs")
    assert batch.ok.tolist() == [True, *[False] * 5]
    for error, reason in zip(batch.errors, reasons, strict=True):
        assert reason in error.reason


def test_media_that_the_server_does_not_take(checkpoints: Path, media: dict[str, Path]) -> None:
    policy = replace(SERVER_POLICY, max_bytes=media["clip"].stat().st_size - 1)
    served = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
    with served, ModelServer(create_app(embedder=served)) as server, Embedder(server.url) as embedder:
        batch = embedder.embed(["a text", media["clip"]], on_error="collect")
    assert batch.ok.tolist() == [True, False]
    assert "raise --max-media of `qwen3vl serve`" in batch.errors[0].reason
    assert batch.errors[0].source == str(media["clip"])
