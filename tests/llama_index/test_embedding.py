"""The core's vectors, bit for bit, on every path; events, caches and copies."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import ImageDocument, ImageNode, MediaResource, MetadataMode, Node, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_vl import MediaKeys, Qwen3VLEmbedding
from llama_index.embeddings.qwen3_vl.nodes import node_input
from PIL import Image
from pydantic import ValidationError

from qwen3vl import BatchError, Embedder, InputError, MediaPolicy

TEXTS = ["a red star", "a green circle on the left", "two words", "a red star"]


@pytest.fixture(scope="module")
def policy(mixed: Path) -> MediaPolicy:
    return MediaPolicy(folders=(mixed,))


@pytest.fixture(scope="module")
def model(policy: MediaPolicy) -> Qwen3VLEmbedding:
    return Qwen3VLEmbedding(model_name="tiny", device="cpu", policy=policy)


async def test_the_cores_vectors(model: Qwen3VLEmbedding, tiny_embedder: Embedder, mixed: Path) -> None:
    star, mover = str(mixed / "star.png"), str(mixed / "mover.mp4")
    texts = tiny_embedder.embed(TEXTS).tolist()
    assert model.get_text_embedding_batch(TEXTS) == await model.aget_text_embedding_batch(TEXTS) == texts
    one = tiny_embedder.embed(TEXTS[:1])[0].tolist()
    assert model.get_text_embedding(TEXTS[0]) == await model.aget_text_embedding(TEXTS[0]) == one
    assert model.get_query_embedding(TEXTS[0]) == await model.aget_query_embedding(TEXTS[0]) == one
    assert model._get_text_embedding(TEXTS[0]) == await model._aget_text_embedding(TEXTS[0]) == one
    assert model._get_query_embedding(TEXTS[0]) == await model._aget_query_embedding(TEXTS[0]) == one
    assert model._get_text_embeddings(TEXTS) == await model._aget_text_embeddings(TEXTS) == texts
    picture = tiny_embedder.embed([{"image": star}])[0].tolist()
    data = Path(star).read_bytes()
    for reference in (star, Path(star).as_uri(), BytesIO(data)):
        assert model.get_image_embedding(reference) == picture
        assert await model.aget_image_embedding(reference) == picture
        assert model._get_image_embedding(reference) == await model._aget_image_embedding(reference) == picture
    two = tiny_embedder.embed([{"image": star}, {"image": star}]).tolist()
    assert model.get_image_embedding_batch([star, star]) == await model.aget_image_embedding_batch([star, star]) == two
    clip = tiny_embedder.embed([{"video": mover}])[0].tolist()
    assert model.get_video_embedding(mover) == await model.aget_video_embedding(mover) == clip
    assert model.get_video_embeddings([mover]) == await model.aget_video_embeddings([mover]) == [clip]
    both: Any = {"text": "a star", "image": star}
    fused = tiny_embedder.embed([both])[0].tolist()
    assert model.get_multimodal_embedding(both) == await model.aget_multimodal_embedding(both) == fused
    assert model.get_multimodal_query_embedding(both) == await model.aget_multimodal_query_embedding(both) == fused
    assert model.query_bundle(both).embedding == fused
    for bundle in (model.query_bundle(both), await model.aquery_bundle(both)):
        assert (bundle.query_str, bundle.image_path, bundle.embedding) == ("a star", star, fused)
    assert type(one[0]) is float
    assert model.get_text_embedding_batch([]) == await model.aget_text_embedding_batch([]) == []
    assert model.get_agg_embedding_from_queries(["a"]) == pytest.approx(model.get_query_embedding("a"))
    with pytest.raises(InputError, match="query_bundle"):
        await model.aget_agg_embedding_from_queries([])


def test_instructions() -> None:
    model = Qwen3VLEmbedding(
        model_name="tiny", dimensions=32, query_instruction="Find it.", document_instruction="Keep the colour."
    )
    core = Embedder("tiny", dimensions=32, instruction="Keep the colour.")
    assert model.get_text_embedding("a") == core.embed("a")[0].tolist()
    assert model.get_query_embedding("a") == core.embed("a", instruction="Find it.")[0].tolist()
    assert model.get_query_embedding("a") != model.get_text_embedding("a")


async def test_nodes_by_what_they_hold(model: Qwen3VLEmbedding, tiny_embedder: Embedder, mixed: Path) -> None:
    import base64

    star, mover = str(mixed / "star.png"), str(mixed / "mover.mp4")
    data = Path(star).read_bytes()
    picture, fused = {"image": star}, {"text": "a star", "image": star}
    cases: list[tuple[Any, Any]] = [
        (TextNode(text="a star"), "a star"),
        (TextNode(text="a star", metadata={"by": "Ann"}), "by: Ann\n\na star"),
        (ImageNode(image_path=star), picture),
        (ImageNode(image=base64.b64encode(data).decode()), picture),
        (ImageNode(image_path=star, text="a star", metadata={"by": "Ann"}), fused),
        (ImageDocument(image_path=star), picture),
        (Node(image_resource=MediaResource(path=Path(star))), picture),
        (Node(image_resource=MediaResource(data=data, mimetype="image/png")), picture),
        (Node(text_resource=MediaResource(text="a star"), image_resource=MediaResource(path=Path(star))), fused),
        (Node(video_resource=MediaResource(path=Path(mover))), {"video": mover}),
        (Node(video_resource=MediaResource(data=Path(mover).read_bytes())), {"video": mover}),
        (TextNode(text="", metadata={"image": star}), picture),
        (TextNode(text="read only", metadata={"image": star, "fused": False}), picture),
        (TextNode(text="", metadata={"video": mover}), {"video": mover}),
    ]
    nodes = [node for node, _ in cases]
    wanted = tiny_embedder.embed([node_input(node) for node in nodes]).tolist()
    np.testing.assert_allclose(wanted, tiny_embedder.embed([given for _, given in cases]), atol=2e-6)
    assert [node.embedding for node in await model.acall([node.model_copy() for node in nodes])] == wanted
    before = [node.model_dump(exclude={"embedding"}) for node in nodes]
    embedded = model(nodes)
    assert [node.embedding for node in embedded] == wanted
    assert all(node.get_content(MetadataMode.EMBED) for node in embedded)  # so that indexes do not drop them
    assert [node.model_dump(exclude={"embedding"}) for node in nodes] == before
    # What they say then is no text of theirs.
    assert [node_input(node) for node in embedded] == [node_input(node) for node in nodes]
    other = Qwen3VLEmbedding(model_name="tiny", policy=model.policy, media_keys=MediaKeys(image=("photo",)))
    (node,) = other([TextNode(text="", metadata={"photo": star, "image": "a title"})])
    assert node.embedding == tiny_embedder.embed([picture])[0].tolist()


def test_errors(model: Qwen3VLEmbedding, mixed: Path) -> None:
    with pytest.raises(ValidationError, match="dimension"):
        Qwen3VLEmbedding(model_name="tiny", dimension=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="trust_remote_code"):
        Qwen3VLEmbedding(model_name="tiny", model_kwargs={"trust_remote_code": True})
    with pytest.raises(BatchError, match=r"item 1 .*corrupt"):
        model([TextNode(text="a"), ImageNode(image_path=str(mixed / "corrupt [x].png"))])
    with pytest.raises(BatchError, match="empty"):
        model.get_text_embedding("")
    # Over all batches, by their places; the good ones are remembered.
    store = SimpleKVStore()
    small = Qwen3VLEmbedding(model_name="tiny", embed_batch_size=2, embeddings_cache=store)
    with pytest.raises(BatchError, match="2 of 6") as caught:
        small.get_text_embedding_batch(["a", "b", "c", "", "d", ""])
    assert [error.index for error in caught.value.errors] == [3, 5]
    assert caught.value.results[4] == small.get_text_embedding("d")
    assert len(store.get_all("qwen3vl")) == 4
    with pytest.raises(BatchError, match="2 of 6") as again:
        small.get_text_embedding_batch(["a", "b", "c", "", "d", ""])
    assert [error.index for error in again.value.errors] == [3, 5]
    skipping = Qwen3VLEmbedding(model_name="tiny", on_error="skip")
    assert [node.node_id for node in skipping([TextNode(text="", id_="1"), TextNode(text="a", id_="2")])] == ["2"]
    with pytest.raises(ValidationError, match="names no folders"):
        small.policy = MediaPolicy()
    with pytest.raises(BatchError, match="empty"):
        model([TextNode(text="")])


class Heard(BaseEventHandler):
    events: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    def handle(self, event: Any, **_: Any) -> None:
        if isinstance(event, (EmbeddingStartEvent, EmbeddingEndEvent)):
            self.events.append(event)


async def test_events_on_every_path(policy: MediaPolicy, mixed: Path) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    model = Qwen3VLEmbedding(model_name="tiny", policy=policy, callback_manager=CallbackManager([debug]))
    star, mover = str(mixed / "star.png"), str(mixed / "mover.mp4")
    heard = Heard()
    root = get_dispatcher()
    root.add_event_handler(heard)
    calls: list[tuple[Any, Any, list[str]]] = [
        (model.get_query_embedding, model.aget_query_embedding, ["a"]),
        (model.get_text_embedding, model.aget_text_embedding, ["a"]),
        (model.get_text_embedding_batch, model.aget_text_embedding_batch, ["a", "b"]),
        (model.get_image_embedding, model.aget_image_embedding, [star]),
        (model.get_image_embedding_batch, model.aget_image_embedding_batch, [star, star]),
        (model.get_video_embedding, model.aget_video_embedding, [mover]),
    ]
    try:
        for waited, awaited, chunks in calls:
            given: Any = chunks if "batch" in waited.__name__ else chunks[0]
            for call in (waited, awaited):
                heard.events.clear()
                debug.flush_event_logs()
                result = call(given)
                found = await result if asyncio.iscoroutine(result) else result
                vectors = found if "batch" in waited.__name__ else [found]
                start, end = heard.events
                assert start.model_dict["model_name"] == "tiny"
                assert (end.chunks, end.embeddings) == (chunks, vectors)
                ((_, ended),) = debug.get_event_pairs(CBEventType.EMBEDDING)
                assert ended.payload is not None
                assert ended.payload["chunks"] == chunks
        debug.flush_event_logs()
        with pytest.raises(BatchError):
            model.get_text_embedding("")
        assert all(len(pair) == 2 for pair in debug.get_event_pairs(CBEventType.EMBEDDING))
        heard.events.clear()
        model.get_image_embedding(BytesIO(Path(star).read_bytes()))
        assert "image of" in heard.events[1].chunks[0]
    finally:
        root.event_handlers.remove(heard)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    run = Embedder.embed

    def counted(self: Embedder, inputs: Any, **options: Any) -> Any:
        made.extend(inputs)
        return run(self, inputs, **options)

    monkeypatch.setattr(Embedder, "embed", counted)
    return made


async def test_the_cache_knows_what_decides_a_vector(
    policy: MediaPolicy, mixed: Path, tmp_path: Path, counting: list[Any], tiny_embedder: Embedder
) -> None:
    store = SimpleKVStore()

    def model(**options: Any) -> Qwen3VLEmbedding:
        allowed = MediaPolicy(folders=(mixed, tmp_path))
        return Qwen3VLEmbedding(model_name="tiny", policy=allowed, embeddings_cache=store, **options)

    first = model(query_instruction="Find it.")
    document, query = first.get_text_embedding("a star"), first.get_query_embedding("a star")
    assert document != query
    assert len(counting) == 2
    assert (first.get_text_embedding("a star"), first.get_query_embedding("a star")) == (document, query)
    assert await model(query_instruction="Find it.").aget_query_embedding("a star") == query
    assert len(counting) == 2
    assert model(query_instruction="Find another.").get_query_embedding("a star") != query
    assert model(document_instruction="Another.").get_text_embedding("a star") != document
    assert len(model(dimensions=16).get_text_embedding("a star")) == 16
    assert len(counting) == 5
    # By content, not by name: the same file elsewhere is known, another one under the same name is not.
    star = (mixed / "star.png").read_bytes()
    (tmp_path / "copy.png").write_bytes(star)
    nodes = [ImageNode(image_path=str(mixed / "star.png")), ImageNode(image_path=str(mixed / "0.png"))]
    first(nodes)
    assert len(counting) == 7
    (copied,) = first([ImageNode(image_path=str(tmp_path / "copy.png"))])
    assert copied.embedding == nodes[0].embedding != nodes[1].embedding
    assert first.get_image_embedding(BytesIO(star)) == nodes[0].embedding
    assert len(counting) == 7
    (tmp_path / "copy.png").write_bytes((mixed / "0.png").read_bytes())
    (changed,) = first([ImageNode(image_path=str(tmp_path / "copy.png"))])
    assert changed.embedding == nodes[1].embedding
    slides = [{"image": f"{mixed}/slides.pdf#page={page}"} for page in (1, 2)]
    assert first.get_multimodal_embedding(slides[0]) != first.get_multimodal_embedding(slides[1])
    mover = str(mixed / "mover.mp4")
    assert first.get_video_embedding(mover) != first.get_video_embedding(f"{mover}#t=0,1")
    # A part from the cache and a part from the model, in their places.
    texts = ["new 1", "a star", "new 2", "a star"]
    counting.clear()
    assert first.get_text_embedding_batch(texts)[1] == document
    assert counting == ["new 1", "new 2"]
    colours = [Image.new("P", (64, 64), 0) for _ in range(2)]
    for picture, palette in zip(colours, ([255, 0, 0], [0, 0, 255]), strict=True):
        picture.putpalette(palette)
    assert first.get_multimodal_embedding({"image": colours[0]}) != first.get_multimodal_embedding(
        {"image": colours[1]}
    )
    # What may not be read is not read for the cache either.
    with pytest.raises(BatchError, match="outside the folders"):
        first.get_image_embedding("/etc/hostname")


class Locked(SimpleKVStore):
    """A cache that cannot be pickled, as those of databases."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_copies_carry_no_weights(model: Qwen3VLEmbedding) -> None:
    vector = model.get_text_embedding("a")
    told = model.to_dict()
    assert Qwen3VLEmbedding.from_dict(json.loads(json.dumps(told))).get_text_embedding("a") == vector
    assert Qwen3VLEmbedding.from_json(model.to_json()).embedder is model.embedder
    assert Qwen3VLEmbedding.model_validate(model.model_dump()).embedder is model.embedder
    locked = Qwen3VLEmbedding(model_name="tiny", embeddings_cache=Locked())
    assert pickle.loads(pickle.dumps(locked)).embeddings_cache is None
    assert isinstance(locked.embeddings_cache, Locked)
    packed = pickle.dumps(model)
    assert len(packed) < 10_000
    again = pickle.loads(packed)
    assert again.policy == model.policy
    assert again.embedder is model.embedder
    assert set(model.to_payload()) == {"class_name", "model_name", "embed_batch_size", "dimensions"}
    cached = Qwen3VLEmbedding(model_name="tiny", embeddings_cache=SimpleKVStore())
    assert "embeddings_cache" not in cached.to_dict()


def test_a_workers_objects_share_a_model() -> None:
    """Each task of a pipeline's worker unpickles an object of its own; the model stays between them."""
    model = Qwen3VLEmbedding(model_name="tiny", dimensions=20)
    code = (
        "import sys, pickle; packed = sys.stdin.buffer.read()\n"
        "ids = set()\n"
        "for _ in range(3):\n"
        "    model = pickle.loads(packed); model.get_text_embedding('a'); ids.add(id(model.embedder)); del model\n"
        "print(len(ids))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(model), capture_output=True, check=True)
    assert done.stdout.strip() == b"1"


async def test_many_at_once(model: Qwen3VLEmbedding) -> None:
    """Hundreds of texts and tasks: one model, the right vectors, and a loop that goes on turning."""
    texts = [f"a text of number {number % 40}" for number in range(400)]
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    small = Qwen3VLEmbedding(model_name="tiny", device="cpu", embed_batch_size=10, num_workers=4, policy=model.policy)
    batched = await small.aget_text_embedding_batch(texts, show_progress=False)
    wanted = {text: model.get_query_embedding(text) for text in set(texts)}
    before = turns
    found = await asyncio.gather(*(model.aget_query_embedding(text) for text in texts[:200]))
    assert turns - before > 20
    turning.cancel()
    assert found == [wanted[text] for text in texts[:200]]
    assert batched[:10] == model.get_text_embedding_batch(texts[:10])
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(model.get_query_embedding, texts[:96])) == found[:96]


async def test_the_rate_limiter_is_asked(policy: MediaPolicy) -> None:
    limits = pytest.importorskip("llama_index.core.rate_limiter", reason="this LlamaIndex has no rate limiters")
    limiter = limits.TokenBucketRateLimiter(requests_per_minute=600_000)
    asked = 0
    acquire = limiter.acquire

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal asked
        asked += 1
        acquire(*args, **kwargs)

    object.__setattr__(limiter, "acquire", counted)
    model = Qwen3VLEmbedding(model_name="tiny", rate_limiter=limiter, embed_batch_size=2)
    model.get_text_embedding_batch(["a", "b", "c"])
    assert asked == 2
    await model.aget_text_embedding("a")


def test_importing_is_light() -> None:
    code = (
        "import sys; from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding as E\n"
        "from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLRerank as R\n"
        "from llama_index.readers.qwen3_vl import Qwen3VLReader as L\n"
        "E(model_name='tiny'); R(model='tiny'); L(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
