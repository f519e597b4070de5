"""`Qwen3VLEmbeddings` returns the core's vectors through each of its methods."""

from __future__ import annotations

import base64
import copy
import gc
import inspect
import pickle
import subprocess
import sys
import weakref
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
from qwen3vl.adapters.registry import release_models
from qwen3vl.adapters.settings import MODEL_KWARGS
from qwen3vl.settings import BackendArguments
from tests.support.engines import assert_close

TEXTS = ["a red star", "a green circle on the left", "two words", "a red star"]


def test_methods_return_the_vectors_of_the_core(
    embeddings: Qwen3VLEmbeddings, tiny_embedder: Embedder, library_folder: Path
) -> None:
    image, video = str(library_folder / "star.png"), str(library_folder / "mover.mp4")
    assert_close(embeddings.embed_documents(TEXTS), tiny_embedder.embed(TEXTS))
    assert_close(embeddings.embed_query(TEXTS[1]), tiny_embedder.embed(TEXTS[1])[0])
    assert_close(embeddings.embed_image(uris=[image, image]), tiny_embedder.embed([{"image": image}] * 2))
    inputs: list[Any] = [{"text": "a caption", "image": image}, {"video": video}]
    assert_close(embeddings.embed_multimodal(inputs), tiny_embedder.embed(inputs))
    assert_close(embeddings.embed_query(inputs[0]), tiny_embedder.embed(inputs[:1])[0])
    assert type(embeddings.embed_query("a")[0]) is float
    assert embeddings.embed_documents([]) == []


def test_instructions_and_dimensions_are_applied(tiny_embedder: Embedder) -> None:
    embeddings = Qwen3VLEmbeddings(
        model="tiny", dimensions=32, document_instruction="Keep the colour.", query_instruction="Find it."
    )
    embedder = Embedder("tiny", dimensions=32, instruction="Keep the colour.")
    assert_close(embeddings.embed_documents(TEXTS), embedder.embed(TEXTS))
    assert_close(embeddings.embed_query("a"), embedder.embed("a", instruction="Find it.")[0])
    assert embeddings.embed_query("a") != embeddings.embed_documents(["a"])[0]
    assert embeddings.embedder.recipe == embedder.recipe
    assert embeddings.embedder.recipe != tiny_embedder.recipe


def test_content_blocks_messages_and_documents_are_accepted(
    embeddings: Qwen3VLEmbeddings, library_folder: Path
) -> None:
    image, video = library_folder / "star.png", library_folder / "mover.mp4"
    image_base64 = base64.b64encode(image.read_bytes()).decode()
    expected = embeddings.embed_query({"text": "a star", "image": str(image)})
    for block in (
        create_image_block(url=image.as_uri()),
        create_image_block(base64=image_base64, mime_type="image/png"),
        {"type": "image", "source_type": "base64", "data": image_base64, "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_base64}"}},
        {"type": "file", "base64": image_base64, "mime_type": "image/png"},
    ):
        blocks: list[Any] = ["a star", block]
        assert embeddings.embed_query(blocks) == expected
        message = HumanMessage(content=[create_text_block("a star"), block])  # type: ignore[list-item]
        assert embeddings.embed_query(message) == expected
    video_base64 = base64.b64encode(video.read_bytes()).decode()
    video_block: Any = create_video_block(base64=video_base64, mime_type="video/mp4")
    assert embeddings.embed_query(video_block) == embeddings.embed_query({"video": str(video)})
    assert embeddings.embed_query(Document("a star", metadata={"image": str(image)})) == expected


def test_content_blocks_of_providers_are_accepted(embeddings: Qwen3VLEmbeddings, library_folder: Path) -> None:
    image, video = library_folder / "star.png", library_folder / "mover.mp4"
    data = base64.b64encode(image.read_bytes()).decode()
    data_uri = f"data:image/png;base64,{data}"
    expected = embeddings.embed_query({"text": "a star", "image": str(image)})
    provider_blocks: dict[str, Any] = {
        "anthropic base64": {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": data},
            "cache_control": {"type": "ephemeral"},
        },
        "anthropic url": {"type": "image", "source": {"type": "url", "url": image.as_uri()}},
        "openai chat": {"type": "image_url", "image_url": {"url": data_uri, "detail": "low"}},
        "openai chat, as str": {"type": "image_url", "image_url": data_uri},
        "openai responses": {"type": "input_image", "image_url": data_uri, "detail": "auto"},
        "gemini": {"type": "media", "mime_type": "image/png", "data": data},
        "gemini bytes": {"type": "media", "mime_type": "image/png", "data": image.read_bytes()},
        "bedrock": {"image": {"format": "png", "source": {"bytes": image.read_bytes()}}},
    }
    for name, block in provider_blocks.items():
        for text_block in ("a star", {"type": "text", "text": "a star"}, {"type": "input_text", "text": "a star"}):
            message = HumanMessage(content=[text_block, block])
            assert embeddings.embed_query(message) == expected, name
            assert embeddings.embed_query([text_block, block]) == expected, name
    video_data = base64.b64encode(video.read_bytes()).decode()
    for block in (
        {"type": "media", "mime_type": "video/mp4", "data": video_data},
        {"type": "video_url", "video_url": {"url": video.as_uri()}},
    ):
        assert embeddings.embed_query([block]) == embeddings.embed_query({"video": str(video)})


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}},
        {"type": "media", "mime_type": "audio/wav", "data": "UklGRg=="},
        {"type": "input_image", "file_id": "file_1"},
        {"type": "thinking", "thinking": "hm"},
    ],
)
def test_unusable_block_of_a_provider_is_a_query_error(embeddings: Qwen3VLEmbeddings, block: Any) -> None:
    with pytest.raises(InputError, match=r"the query .*block"):
        embeddings.embed_query([block])


@pytest.mark.parametrize(
    "blocks",
    [[{"type": "audio", "url": "a.mp3"}], [{"type": "image", "file_id": "1"}], [{"type": "text"}], [3]],
    ids=["audio", "file_id", "text without text", "int"],
)
def test_unusable_content_block_is_a_query_error(embeddings: Qwen3VLEmbeddings, blocks: Any) -> None:
    with pytest.raises(InputError, match=r"the query .*block"):
        embeddings.embed_query(blocks)


@pytest.mark.engine
def test_model_kwargs_change_video_sampling(library_folder: Path) -> None:
    video: Any = {"video": str(library_folder / "mover.mp4")}
    policy = MediaPolicy(folders=(library_folder,))
    embeddings = Qwen3VLEmbeddings(model="tiny", policy=policy, model_kwargs={"fps": 4.0, "max_frames": 8})
    assert embeddings.embed_query(video) == Embedder("tiny", fps=4.0, max_frames=8).embed([video])[0].tolist()
    assert embeddings.embed_query(video) != Qwen3VLEmbeddings(model="tiny", policy=policy).embed_query(video)
    assert embeddings.embedder.recipe.fps == 4.0


def test_single_input_is_a_list_of_one_and_generators_are_accepted(
    embeddings: Qwen3VLEmbeddings, library_folder: Path
) -> None:
    image: Any = {"image": str(library_folder / "star.png")}
    assert embeddings.embed_multimodal(image) == embeddings.embed_multimodal([image])
    assert_close(embeddings.embed_documents("two words"), embeddings.embed_documents(["two words"]))
    assert embeddings.collect("two words").values.tolist() == embeddings.embed_documents(["two words"])
    assert_close(embeddings.embed_documents(text for text in TEXTS), embeddings.embed_documents(TEXTS))  # type: ignore[arg-type]


def test_array_is_embedded_as_an_image(embeddings: Qwen3VLEmbeddings) -> None:
    array: Any = np.zeros((64, 64, 3), np.uint8)
    assert embeddings.embed_documents([array]) == [embeddings.embed_query(array)]


def test_array_beside_a_failed_input_has_its_vector(embeddings: Qwen3VLEmbeddings) -> None:
    array: Any = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(BatchError, match=r"item 1 .*it is empty") as caught:
        embeddings.embed_documents([array, ""])
    assert "add_documents" in caught.value.__notes__[0]
    assert_close(caught.value.results[0], embeddings.embed_query(array))
    with pytest.raises(BatchError, match=r"none\.png") as caught:
        embeddings.embed_multimodal([array, {"image": "none.png"}])
    assert not hasattr(caught.value, "__notes__")


def test_invalid_fields_are_rejected() -> None:
    with pytest.raises(ValidationError, match="dimension"):
        Qwen3VLEmbeddings(model="tiny", dimension=32)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="always have length 1"):
        Qwen3VLEmbeddings(model="tiny", encode_kwargs={"batch_size": 8})
    assert Qwen3VLEmbeddings(model="tiny", encode_kwargs={"normalize_embeddings": True}).embed_query("a")
    with pytest.raises(ValidationError, match="trust_remote_code"):
        Qwen3VLEmbeddings(model="tiny", model_kwargs={"trust_remote_code": True})
    with pytest.raises(ValidationError):
        Qwen3VLEmbeddings(model="tiny", dimensions=0)


def test_empty_query_is_an_input_error(embeddings: Qwen3VLEmbeddings) -> None:
    with pytest.raises(InputError, match=r"the query .*it is empty"):
        embeddings.embed_query("")


def test_failed_documents_are_in_the_batch_error(embeddings: Qwen3VLEmbeddings, library_folder: Path) -> None:
    with pytest.raises(BatchError, match=r"item 1 .*it is empty") as caught:
        embeddings.embed_documents(["a", ""])
    assert "add_documents" in caught.value.__notes__[0]
    assert_close(caught.value.results[0], embeddings.embed_documents(["a"])[0])
    corrupt = str(library_folder / "corrupt [x].png")
    with pytest.raises(BatchError, match="corrupt"):
        embeddings.embed_image([corrupt])
    inputs: Any = ["good", Document("", metadata={"image": 7}), {"image": corrupt}, "good"]
    with pytest.raises(BatchError, match="2 of 4") as caught:
        embeddings.embed_multimodal(inputs)
    assert [error.index for error in caught.value.errors] == [1, 2]
    assert_close(caught.value.results[0], caught.value.results[3])


def test_document_is_named_by_its_source_in_errors(embeddings: Qwen3VLEmbeddings) -> None:
    documents = [
        Document("", metadata={"image": 7, "source": "report.pdf"}),
        Document("", id="a1", metadata={"image": 7}),
        Document("", metadata={"image": 7}),
    ]
    sources = [error.source for error in embeddings.collect(documents).errors]
    assert sources == ["report.pdf", "a1", "a document without source and id"]


def test_every_argument_of_the_core_is_a_field_or_in_model_kwargs() -> None:
    for core, fields in (
        (
            Embedder,
            {"model", "revision", "adapter", "dimensions", "instruction", "device", "dtype", "policy", "api_key"},
        ),
        (Reranker, {"model", "revision", "adapter", "instruction", "device", "dtype", "policy", "api_key"}),
    ):
        arguments = set(inspect.signature(core).parameters) - {"settings"} | set(BackendArguments.__annotations__)
        assert arguments == fields | set(MODEL_KWARGS)


def test_objects_with_equal_settings_share_one_model() -> None:
    first, second = Qwen3VLEmbeddings(model="tiny"), Qwen3VLEmbeddings(model="tiny")
    assert first.embedder is second.embedder
    assert copy.deepcopy(first).embedder is first.embedder
    assert Qwen3VLEmbeddings(**first.model_dump()).embedder is first.embedder
    assert Qwen3VLEmbeddings.model_validate({"model_name": "tiny"}).embedder is first.embedder


@pytest.mark.engine
def test_copy_with_other_dimensions_shares_the_weights() -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny")
    embedder = embeddings.embedder
    short = embeddings.model_copy(update={"dimensions": 16})
    assert len(short.embed_query("a")) == 16
    assert short.embedder.engine.model is embedder.engine.model
    assert embeddings.embedder is embedder


def test_changed_field_takes_effect_at_the_next_call() -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny")
    full = embeddings.embed_query("a")
    embeddings.dimensions = 16
    assert len(embeddings.embed_query("a")) == 16
    embeddings.dimensions = None
    assert embeddings.embed_query("a") == full


def test_pickle_holds_settings_without_the_model() -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny")
    vector = embeddings.embed_query("a")
    unused = Qwen3VLEmbeddings(model="tiny")
    assert len(pickle.dumps(embeddings)) == len(pickle.dumps(unused))
    unpickled = pickle.loads(pickle.dumps(embeddings))
    assert unpickled == unused
    assert unpickled.embed_query("a") == vector


def test_model_is_freed_with_the_last_object_that_uses_it() -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny", dimensions=17)
    embedder = weakref.ref(embeddings.embedder)
    gc.collect()
    assert embedder() is embeddings.embedder
    del embeddings
    gc.collect()
    assert embedder() is None


def test_model_is_loaded_anew_after_release_models() -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny")
    embedder, vector = embeddings.embedder, embeddings.embed_query("a")
    release_models()
    assert embedder.closed
    assert embeddings.embed_query("a") == vector
    assert embeddings.embedder is not embedder


def test_store_probe_is_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny", dimensions=24)
    num_calls = 0
    embed = Embedder.embed

    def counting_embed(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        return embed(*args, **kwargs)

    monkeypatch.setattr(Embedder, "embed", counting_embed)
    store = QdrantVectorStore.from_documents([Document("a red star")], embeddings, location=":memory:")
    store.max_marginal_relevance_search("a", k=1)
    QdrantVectorStore(store.client, store.collection_name, embeddings)
    assert num_calls == 3  # the probe, the document, the query
    assert embeddings.embed_documents(["dummy_text"]) == embed(embeddings.embedder, ["dummy_text"]).tolist()


def test_threads_get_the_right_vectors(embeddings: Qwen3VLEmbeddings) -> None:
    texts = [f"a text of number {number % 40}" for number in range(320)]
    expected = {text: embeddings.embed_query(text) for text in set(texts)}
    with ThreadPoolExecutor(32) as pool:
        for text, vector in zip(texts, pool.map(embeddings.embed_query, texts), strict=True):
            assert_close(vector, expected[text])


def test_media_keys_are_validated() -> None:
    with pytest.raises(ValidationError):
        Qwen3VLEmbeddings(model="tiny", media_keys={"picture": ("a",)})  # type: ignore[arg-type]
    keys = Qwen3VLEmbeddings(model="tiny", media_keys=MediaKeys(image=("photo",))).media_keys
    assert (keys.image, keys.video) == (("photo",), ("video",))
    assert MediaKeys(image="photo").image == ("photo",)


def test_plain_store_retriever_accepts_an_image_query(embeddings: Qwen3VLEmbeddings, library_folder: Path) -> None:
    store = InMemoryVectorStore(embeddings)
    store.add_texts(["a red star", "a green circle"])
    query: Any = {"image": str(library_folder / "star.png")}
    assert store.as_retriever(search_kwargs={"k": 1}).invoke(query)[0].page_content == "a red star"


def test_import_and_construction_do_not_import_torch() -> None:
    code = (
        "import sys, langchain_qwen3_vl as q; q.Qwen3VLEmbeddings(model='tiny'); q.Qwen3VLReranker(model='tiny'); "
        "q.Qwen3VLLoader('x'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
