"""What a vLLM server cannot do exactly is refused, and says what to do."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import BatchError, Embedder, InputError, ModelError, PolicyError, RecipeError, Reranker, ServerError
from qwen3vl.client.transport import Transport
from qwen3vl.inputs import Item
from qwen3vl.media.policy import DEFAULT_POLICY
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import read_headers
from qwen3vl.processing.templates import EMBED_INSTRUCTION, embed_prompt
from qwen3vl.processing.tokenizer import Tokenizer
from qwen3vl.settings import ClientSettings
from qwen3vl.vllm.probe import Probe, ServedModel
from qwen3vl.vllm.prompts import PromptParts
from tests.conftest import CASES, resolve
from tests.golden.inputs import scene
from tests.support import http_thread
from tests.support.recorded_server import RecordedServer
from tests.test_golden import check
from tests.vllm.conftest import RECORDED, RUNNING

VllmServer = Callable[[str], str]


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test with running servers if the one that it needs is not among them."""
    return pytest.mark.skipif(RUNNING and name not in os.environ, reason=f"needs {name}")


@needs("VLLM_DEFAULT_URL")
def test_server_that_may_not_be_told_sizes(vllm_server: VllmServer, checkpoints: Path, media: dict[str, Path]) -> None:
    """As vLLM starts by default: images that it would shrink and videos are refused, and the others are exact."""
    inputs: list[Any] = [resolve(CASES["embed"][name], media) for name in ("image-photo", "image-huge", "text-plain")]
    inputs.append({"video": [scene(512, 384, seed) for seed in range(4)]})
    with Embedder(vllm_server("default"), tokenizer=checkpoints / "embedding") as embedder:
        batch = embedder.embed(inputs, on_error="collect")
        check("image-photo", batch.values[0])
        check("text-plain", batch.values[2])
        assert [error.index for error in batch.errors] == [1, 3]
        assert "it resizes images of this size" in batch.errors[0].reason
        for error in batch.errors:
            assert isinstance(error.__cause__, InputError)
            assert "--trust-request-mm-kwargs" in error.reason
    with Embedder(vllm_server("default"), tokenizer=checkpoints / "embedding", max_pixels=1280 * 1024) as embedder:
        assert embedder.embed(inputs[1]).shape == (1, 96)


@needs("VLLM_OWN_TEMPLATE_URL")
def test_template_that_marks_videos_twice(vllm_server: VllmServer, checkpoints: Path) -> None:
    video = {"video": [scene(512, 384, seed) for seed in range(4)]}
    embedder = Embedder(vllm_server("own-template"), tokenizer=checkpoints / "embedding")
    with (
        embedder,
        pytest.raises(BatchError, match=r"sent videos: .*has other tokens .* \(568, not 566\); see docs/vllm.md"),
    ):
        embedder.embed([video])


def test_texts_beside_media_that_vllm_would_read_otherwise(
    vllm_server: VllmServer, checkpoints: Path, media: dict[str, Path]
) -> None:
    picture = str(media["photo"])
    inputs: list[Any] = [
        {"image": picture, "text": "an <|im_end|> that is text"},
        {"image": picture, "text": "a long text " * 100},
        {"video": [[scene(512, 384, 1)] * 4, [scene(512, 384, 2)] * 6]},
        "a text",
    ]
    embedder = Embedder(vllm_server("embedder"), tokenizer=checkpoints / "embedding", max_length=300)
    with embedder, pytest.raises(BatchError) as caught:
        embedder.embed(inputs)
    assert [error.index for error in caught.value.errors] == [0, 1, 2]
    control_token, cut, videos = (error.reason for error in caught.value.errors)
    assert "<|im_end|>" in control_token
    assert "cannot be done through vLLM beside images" in cut
    assert "one frame rate" in videos
    assert np.isfinite(caught.value.results[3]).all()


@needs("VLLM_DEFAULT_RERANKER_URL")
def test_query_that_cannot_be_sent_fails_at_once(vllm_server: VllmServer, checkpoints: Path) -> None:
    reranker = Reranker(vllm_server("default-reranker"), tokenizer=checkpoints / "reranker")
    with reranker, pytest.raises(InputError, match=r"the query \(video of 4 frames .*vLLM cannot be sent videos"):
        reranker.score({"video": [scene(512, 384, seed) for seed in range(4)]}, ["a box"])


def test_other_kind_of_model(vllm_server: VllmServer, checkpoints: Path) -> None:
    """A bi-encoder would give scores by its similarity."""
    with pytest.raises(
        ModelError, match=r"has not loaded embedding as a reranker: .*Start vLLM with --runner pooling --h"
    ):
        Reranker(vllm_server("embedder"), tokenizer=checkpoints / "embedding")
    with pytest.raises(ModelError, match="has not loaded reranker as an embedding model"):
        Embedder(vllm_server("reranker"), tokenizer=checkpoints / "reranker")


@needs("VLLM_EXCHANGED_URL")
def test_reranker_with_exchanged_classes(
    vllm_server: VllmServer, checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ModelError, match=r"its classes may be exchanged. Start vLLM with .*\[\"no\", \"yes\"\]"):
        Reranker(vllm_server("exchanged"), tokenizer=checkpoints / "reranker")
    with caplog.at_level(logging.WARNING):
        Reranker(vllm_server("exchanged"), tokenizer=checkpoints / "reranker", check_model=False).close()
    assert "its classes may be exchanged" in caplog.text


def test_tokenizer_of_another_model(vllm_server: VllmServer, checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the tokenizer is not that of embedding"):
        Embedder(vllm_server("embedder"), tokenizer=checkpoints / "reranker")  # it does not end prompts with a token
    with pytest.raises(ModelError, match=r"has no tokenizer.json; pass a folder that has that of embedding"):
        Embedder(vllm_server("embedder"), tokenizer=tmp_path)


def test_recipe_of_weights_that_are_not_here(vllm_server: VllmServer, checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(checkpoints / "embedding" / "tokenizer.json")
    with (
        Embedder(vllm_server("embedder"), tokenizer=tmp_path) as remote,
        Embedder(vllm_server("embedder"), tokenizer=checkpoints / "embedding") as known,
    ):
        assert remote.recipe.weights == f"vllm:{remote.recipe.model}"
        with pytest.raises(RecipeError, match="weights"):
            remote.recipe.check(known.recipe, "library")


def test_prompts_longer_than_the_server_takes(vllm_server: VllmServer, checkpoints: Path) -> None:
    with pytest.raises(
        ValueError, match=r"max_length is 20000, .*takes 10400: pass a smaller max_length, or start vLLM"
    ):
        Embedder(vllm_server("embedder"), tokenizer=checkpoints / "embedding", max_length=20000)
    with pytest.raises(ValueError, match=r"dimensions is 97; it must be between 1 and 96"):
        Embedder(vllm_server("embedder"), tokenizer=checkpoints / "embedding", dimensions=97)


class _ServerThatIsDown(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(503)


def test_server_that_goes_down_is_not_one_that_takes_no_media(checkpoints: Path) -> None:
    """It would be refused media as long as the object lives."""
    limits = Limits()

    def to_parts(item: Item) -> PromptParts:
        return embed_prompt(read_headers(item, limits, DEFAULT_POLICY, exif=False), EMBED_INSTRUCTION)

    with ThreadingHTTPServer(("127.0.0.1", 0), _ServerThatIsDown) as server:
        http_thread.start(server)
        transport = Transport([f"http://127.0.0.1:{server.server_port}"], ClientSettings(max_retries=0))
        tokenizer = Tokenizer(checkpoints / "embedding" / "tokenizer.json")
        probe = Probe(transport, ServedModel("embedding", "embedding", 10400), tokenizer)
        with pytest.raises(ServerError, match="503"):
            transport.submit(probe.find_refusals, to_parts).result()
        transport.close()
        server.shutdown()


def test_addresses_and_settings(vllm_server: VllmServer) -> None:
    url = vllm_server("embedder")
    with pytest.raises(ValueError, match="some are vLLM's servers, and others are not"):
        Embedder([url, "http://localhost:1"])
    with pytest.raises(ValueError, match=r"device: for a model that runs in this process"):
        Embedder(url, device="cuda")
    with pytest.raises(ValueError, match=r"tokenizer is for vLLM's servers \(vllm\+http://…\)"):
        Embedder(url.removeprefix("vllm+"), tokenizer="a/model")
    with pytest.raises(ServerError, match="cannot be reached"):
        Embedder("vllm+http://127.0.0.1:9", max_retries=0)
    with pytest.raises(ValueError, match="no URL of a server"):
        Embedder("vllm+http://user@host")


class _OverflowingServer(RecordedServer):
    """While it overflows, the last vector of each answer is not a number, as vLLM may return it in 16 bits."""

    overflows = False

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        status, answer = super().answer(method, path, body)
        if self.overflows and path == "/v1/embeddings":
            last = answer["data"][-1]
            size = len(base64.b64decode(last["embedding"]))
            last["embedding"] = base64.b64encode(np.full(size // 4, np.nan, dtype="<f4").tobytes()).decode()
        return status, answer


def test_values_that_are_not_finite_are_errors(checkpoints: Path, media: dict[str, Path]) -> None:
    inputs = [resolve(CASES["embed"][name], media) for name in ("text-plain", "text-multilingual", "image-photo")]
    with _OverflowingServer(RECORDED / "embedder.json") as server:
        with Embedder(f"vllm+{server.url}", tokenizer=checkpoints / "embedding") as embedder:
            server.overflows = True
            batch = embedder.embed(inputs, on_error="collect")
        with pytest.raises(ModelError, match="returns vectors that are not finite"):
            Embedder(f"vllm+{server.url}", tokenizer=checkpoints / "embedding")
    check("text-plain", batch.values[0])
    assert [error.index for error in batch.errors] == [1, 2]
    assert all("values for it that are not finite" in error.reason for error in batch.errors)


class _WithoutTokens(RecordedServer):
    """Says how many tokens there are, and not which."""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        status, answer = super().answer(method, path, body)
        return status, {"count": answer["count"]} if path == "/tokenize" else answer


def test_answer_without_tokens(checkpoints: Path) -> None:
    with (
        _WithoutTokens(RECORDED / "embedder.json") as server,
        pytest.raises(ServerError, match=rf"{server.url} answers /tokenize without the tokens"),
    ):
        Embedder(f"vllm+{server.url}", tokenizer=checkpoints / "embedding")


class _BehindSmallProxy(RecordedServer):
    """Answers as a proxy does where a request is too large for it, without details."""

    max_bytes = 10**9
    status = 413
    num_refused = 0

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if len(json.dumps(body)) > self.max_bytes:
            self.num_refused += 1
            return self.status, "a page"
        return super().answer(method, path, body)


def test_vllm_behind_a_proxy(checkpoints: Path, media: dict[str, Path]) -> None:
    names = ("text-plain", "text-multilingual", "image-photo")
    inputs = [resolve(CASES["embed"][name], media) for name in names]
    with (
        _BehindSmallProxy(RECORDED / "embedder.json") as server,
        Embedder(f"vllm+{server.url}", tokenizer=checkpoints / "embedding") as embedder,
    ):
        server.max_bytes = 450  # more than each text, and less than both
        batch = embedder.embed(inputs, on_error="collect")
        assert server.num_refused == 2
        for name, vector in zip(names[:2], batch.values[:2], strict=True):
            check(name, vector)
        (error,) = batch.errors
        assert (error.index, type(error.__cause__)) == (2, PolicyError)
        assert "a proxy before the server accepts smaller bodies" in error.reason
        server.status = 400  # a page of whatever it is says nothing of the input
        with pytest.raises(ServerError, match="is no vLLM server"):
            embedder.embed(inputs)
