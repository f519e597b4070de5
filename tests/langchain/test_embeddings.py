"""The core's vectors, bit for bit, whatever the way they are asked for."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.messages.content import create_image_block, create_text_block, create_video_block
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qdrant import QdrantVectorStore
from langchain_qwen3_vl import MediaKeys, Qwen3VLEmbeddings
from pydantic import ValidationError

from qwen3vl import BatchError, Embedder, InputError, MediaPolicy, Reranker
from qwen3vl.adapters.settings import MODEL_KWARGS
from qwen3vl.settings import EngineArguments

TEXTS = ["a red star", "a green circle on the left", "two words", "a red star"]


@pytest.fixture(scope="module")
def embeddings(mixed: Path) -> Qwen3VLEmbeddings:
    return Qwen3VLEmbeddings(model="tiny", device="cpu", policy=MediaPolicy(folders=(mixed,)))


def test_the_cores_vectors(embeddings: Qwen3VLEmbeddings, tiny_embedder: Embedder, mixed: Path) -> None:
    star, mover = str(mixed / "star.png"), str(mixed / "mover.mp4")
    assert embeddings.embed_documents(TEXTS) == tiny_embedder.embed(TEXTS).tolist()
    assert embeddings.embed_query(TEXTS[1]) == tiny_embedder.embed(TEXTS[1])[0].tolist()
    assert embeddings.embed_image(uris=[star, star]) == tiny_embedder.embed([{"image": star}] * 2).tolist()
    inputs: list[Any] = [{"text": "a caption", "image": star}, {"video": mover}]
    assert embeddings.embed_multimodal(inputs) == tiny_embedder.embed(inputs).tolist()
    assert embeddings.embed_query(inputs[0]) == tiny_embedder.embed(inputs[:1])[0].tolist()
    assert type(embeddings.embed_query("a")[0]) is float
    assert embeddings.embed_documents([]) == []


async def test_awaited(embeddings: Qwen3VLEmbeddings, mixed: Path) -> None:
    star = str(mixed / "star.png")
    assert await embeddings.aembed_documents(TEXTS) == embeddings.embed_documents(TEXTS)
    assert await embeddings.aembed_query(TEXTS[0]) == embeddings.embed_query(TEXTS[0])
    assert await embeddings.aembed_image([star]) == embeddings.embed_image([star])
    assert await embeddings.aembed_multimodal([{"image": star}]) == embeddings.embed_multimodal([{"image": star}])


def test_instructions_and_dimensions(tiny_embedder: Embedder) -> None:
    ours = Qwen3VLEmbeddings(
        model="tiny", dimensions=32, document_instruction="Keep the colour.", query_instruction="Find it."
    )
    cut = Embedder("tiny", dimensions=32, instruction="Keep the colour.")
    assert ours.embed_documents(TEXTS) == cut.embed(TEXTS).tolist()
    assert ours.embed_query("a") == cut.embed("a", instruction="Find it.")[0].tolist()
    assert ours.embed_query("a") != ours.embed_documents(["a"])[0]
    assert ours.embedder.recipe == cut.recipe
    assert ours.embedder.recipe != tiny_embedder.recipe


def test_content_blocks(embeddings: Qwen3VLEmbeddings, mixed: Path) -> None:
    import base64

    star, mover = mixed / "star.png", mixed / "mover.mp4"
    encoded = base64.b64encode(star.read_bytes()).decode()
    wanted = embeddings.embed_query({"text": "a star", "image": str(star)})
    for block in (
        create_image_block(url=star.as_uri()),
        create_image_block(base64=encoded, mime_type="image/png"),
        {"type": "image", "source_type": "base64", "data": encoded, "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
        {"type": "file", "base64": encoded, "mime_type": "image/png"},
    ):
        blocks: list[Any] = ["a star", block]
        assert embeddings.embed_query(blocks) == wanted
        assert embeddings.embed_query(HumanMessage(content=[create_text_block("a star"), block])) == wanted  # type: ignore[list-item]
    moving = base64.b64encode(mover.read_bytes()).decode()
    clip: Any = create_video_block(base64=moving, mime_type="video/mp4")
    assert embeddings.embed_query(clip) == embeddings.embed_query({"video": str(mover)})
    assert embeddings.embed_query(Document("a star", metadata={"image": str(star)})) == wanted
    for odd in ([{"type": "audio", "url": "a.mp3"}], [{"type": "image", "file_id": "1"}], [{"type": "text"}], [3]):
        with pytest.raises(InputError, match="block"):
            embeddings.embed_query(odd)  # type: ignore[arg-type]


def test_clips_sampled_otherwise(mixed: Path) -> None:
    clip: Any = {"video": str(mixed / "mover.mp4")}
    policy = MediaPolicy(folders=(mixed,))
    some = Qwen3VLEmbeddings(model="tiny", policy=policy, model_kwargs={"fps": 4.0, "max_frames": 8})
    assert some.embed_query(clip) == Embedder("tiny", fps=4.0, max_frames=8).embed([clip])[0].tolist()
    assert some.embed_query(clip) != Qwen3VLEmbeddings(model="tiny", policy=policy).embed_query(clip)
    assert some.embedder.recipe.fps == 4.0


def test_one_input_and_streams(embeddings: Qwen3VLEmbeddings, mixed: Path) -> None:
    """A single input is a list of one, as in the core; a generator loses nothing."""
    picture: Any = {"image": str(mixed / "star.png")}
    assert embeddings.embed_multimodal(picture) == embeddings.embed_multimodal([picture])
    assert embeddings.embed_documents("two words") == embeddings.embed_documents(["two words"])
    assert embeddings.embed_documents(text for text in TEXTS) == embeddings.embed_documents(TEXTS)  # type: ignore[arg-type]


def test_errors(embeddings: Qwen3VLEmbeddings, mixed: Path) -> None:
    with pytest.raises(ValidationError, match="dimension"):
        Qwen3VLEmbeddings(model="tiny", dimension=32)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="length 1 always"):
        Qwen3VLEmbeddings(model="tiny", encode_kwargs={"batch_size": 8})
    assert Qwen3VLEmbeddings(model="tiny", encode_kwargs={"normalize_embeddings": True}).embed_query("a")
    with pytest.raises(ValidationError, match="trust_remote_code"):
        Qwen3VLEmbeddings(model="tiny", model_kwargs={"trust_remote_code": True})
    with pytest.raises(InputError, match="it is empty"):
        embeddings.embed_query("")
    with pytest.raises(BatchError, match=r"item 1 .*it is empty") as caught:
        embeddings.embed_documents(["a", ""])
    assert "add_documents" in caught.value.__notes__[0]
    np.testing.assert_array_equal(caught.value.results[0], embeddings.embed_documents(["a"])[0])
    with pytest.raises(BatchError, match="corrupt"):
        embeddings.embed_image([str(mixed / "corrupt [x].png")])
    with pytest.raises(ValidationError):
        Qwen3VLEmbeddings(model="tiny", dimensions=0)
    mixture: Any = ["good", Document("", metadata={"image": 7}), {"image": str(mixed / "corrupt [x].png")}, "good"]
    with pytest.raises(BatchError, match="2 of 4") as both:
        embeddings.embed_multimodal(mixture)
    assert [error.index for error in both.value.errors] == [1, 2]
    np.testing.assert_array_equal(both.value.results[0], both.value.results[3])


def test_every_argument_of_the_core_has_a_place() -> None:
    """Either a field of its own, or in `model_kwargs`."""
    for core, fields in (
        (Embedder, {"model", "revision", "dimensions", "instruction", "device", "dtype", "policy"}),
        (Reranker, {"model", "revision", "instruction", "device", "dtype", "policy"}),
    ):
        assert set(inspect.signature(core).parameters) - {"settings"} | set(
            EngineArguments.__annotations__
        ) == fields | set(MODEL_KWARGS)


def test_one_model_for_equal_settings() -> None:
    first, second = Qwen3VLEmbeddings(model="tiny"), Qwen3VLEmbeddings(model="tiny")
    assert first.embedder is second.embedder
    other = first.model_copy(update={"dimensions": 16})
    assert len(other.embed_query("a")) == 16
    assert other.embedder.engine.model is first.embedder.engine.model
    assert copy.deepcopy(first).embedder.engine.model is first.embedder.engine.model
    again = pickle.loads(pickle.dumps(first))
    assert again._held is None
    assert again.embed_query("a") == first.embed_query("a")
    assert Qwen3VLEmbeddings(**first.model_dump()).embedder is first.embedder
    assert Qwen3VLEmbeddings.model_validate({"model_name": "tiny"}).embedder is first.embedder


def test_the_probe_costs_one_pass_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny", dimensions=24)
    passes = 0
    run = Embedder.embed

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal passes
        passes += 1
        return run(*args, **kwargs)

    monkeypatch.setattr(Embedder, "embed", counted)
    store = QdrantVectorStore.from_documents([Document("a red star")], embeddings, location=":memory:")
    store.max_marginal_relevance_search("a", k=1)
    QdrantVectorStore(store.client, store.collection_name, embeddings)
    assert passes == 3  # the probe, the document, the query
    assert embeddings.embed_documents(["dummy_text"]) == run(embeddings.embedder, ["dummy_text"]).tolist()


def test_threads(embeddings: Qwen3VLEmbeddings) -> None:
    texts = [f"a text of number {number % 40}" for number in range(320)]
    wanted = {text: embeddings.embed_query(text) for text in set(texts)}
    with ThreadPoolExecutor(32) as pool:
        for text, found in zip(texts, pool.map(embeddings.embed_query, texts), strict=True):
            assert found == wanted[text]


async def test_tasks_leave_the_loop_alone(embeddings: Qwen3VLEmbeddings) -> None:
    """200 at once: the right vectors, while the loop goes on turning and asyncio's own threads stay free."""
    texts = [f"a text of number {number % 40}" for number in range(200)]
    wanted = {text: embeddings.embed_query(text) for text in set(texts)}
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    asked = [asyncio.create_task(embeddings.aembed_query(text)) for text in texts]
    await asyncio.sleep(0)
    began = turns
    await asyncio.to_thread(time.sleep, 0)
    assert not all(task.done() for task in asked)
    found = await asyncio.gather(*asked)
    turning.cancel()
    assert found == [wanted[text] for text in texts]
    assert turns - began > 20


def test_keys() -> None:
    with pytest.raises(ValidationError):
        Qwen3VLEmbeddings(model="tiny", media_keys={"picture": ("a",)})  # type: ignore[arg-type]
    keys = Qwen3VLEmbeddings(model="tiny", media_keys=MediaKeys(image=("photo",))).media_keys
    assert (keys.image, keys.video) == (("photo",), ("video",))
    assert MediaKeys(image="photo").image == ("photo",)  # type: ignore[arg-type]


def test_other_stores_search_by_picture(embeddings: Qwen3VLEmbeddings, mixed: Path) -> None:
    """A query that is a mapping reaches the embeddings through LangChain's plain retrievers."""
    store = InMemoryVectorStore(embeddings)
    store.add_texts(["a red star", "a green circle"])
    query: Any = {"image": str(mixed / "star.png")}
    assert store.as_retriever(search_kwargs={"k": 1}).invoke(query)[0].page_content == "a red star"


def test_importing_is_light() -> None:
    code = "import sys, langchain_qwen3_vl as q; q.Qwen3VLEmbeddings(model='tiny'); q.Qwen3VLReranker(model='tiny'); "
    code += "q.Qwen3VLLoader('x'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
