"""References in documents and queries reach nothing that the media policy does not allow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_vl import (
    MediaKeys,
    Qwen3VLEmbeddings,
    Qwen3VLReranker,
    aadd_documents,
    add_documents,
    content_blocks,
)
from pydantic import ValidationError

from qwen3vl import BatchError, InputError, MediaPolicy, Qwen3VLError
from tests.support.hostile.png import png
from tests.support.hostile.references import HOSTILE, data_uri, prepare, reference
from tests.support.http_server import Server


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("allowed"))


@pytest.fixture(params=range(len(HOSTILE)))
def hostile(request: pytest.FixtureRequest, allowed: Path, server: Server) -> tuple[Any, str, Server]:
    server.pages["/a.png"] = (200, {}, b"secret")
    return (*reference(request.param, allowed, server), server)


def test_hostile_image_in_metadata_is_an_item_error(hostile: tuple[Any, str, Server], allowed: Path) -> None:
    image, reason, server = hostile
    policy = MediaPolicy(folders=(allowed,))
    store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny", policy=policy))
    documents = [Document("a red star"), Document("", metadata={"image": image}), Document("a green circle")]
    with pytest.raises(BatchError, match="1 of 3") as caught:
        add_documents(store, documents)
    assert reason in caught.value.errors[0].reason
    assert caught.value.errors[0].index == 1
    assert len(store.store) == 2
    reranked = Qwen3VLReranker(model="tiny", policy=policy, top_n=None).compress_documents(documents, "a red star")
    assert reason in reranked[-1].metadata["rerank_error"]
    assert all("relevance_score" in document.metadata for document in reranked[:2])
    with pytest.raises(BatchError, match="1 of 3"):
        Qwen3VLReranker(model="tiny", policy=policy, on_error="raise").compress_documents(documents, "a red star")
    assert content_blocks(documents[1:2], policy=policy) == []
    assert server.requested_paths == []


class NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


CIRCULAR: dict[str, Any] = {}
CIRCULAR["itself"] = CIRCULAR
DEEP: dict[str, Any] = {}
for _ in range(3000):
    DEEP = {"deeper": DEEP}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (Document("a", metadata={1: "one", "two": 2}), "TypeError"),
        (Document("a", metadata={("a", 1): "tuple"}), "keys must be str"),
        (Document("a", metadata=CIRCULAR), "Circular reference"),
        (Document("a", metadata=DEEP), "RecursionError"),
        (Document("a", metadata={"object": NoRepr()}), "RuntimeError: no text"),
        ("a", "it is no document of LangChain"),
        (None, "it is no document of LangChain"),
    ],
    ids=["mixed keys", "tuple", "circular", "deep", "no repr", "str", "none"],
)
async def test_document_without_an_id_costs_no_other_document_anything(document: Any, reason: str) -> None:
    """The id of a document that has none is computed from its metadata, which may be anything."""
    store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny"))
    for documents in ([document, Document("a red star", id="good")], [Document("a red star", id="good"), document]):
        store.store.clear()
        with pytest.raises(BatchError, match="1 of 2") as caught:
            add_documents(store, documents)
        assert reason in caught.value.errors[0].reason
        assert list(store.store) == ["good"]
        with pytest.raises(BatchError, match="1 of 2"):
            await aadd_documents(store, documents)


def test_errors_name_documents_and_queries_that_cannot_be_converted() -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny", media_keys=MediaKeys(image="photo"))
    with pytest.raises(BatchError, match=r"item 0 \(a\.pdf\): it is empty: .* under 'photo', 'video'; name other keys"):
        add_documents(InMemoryVectorStore(embeddings), [Document("", metadata={"source": "a.pdf", "image": "a.png"})])
    query: Any = [{"type": "tool_use", "id": "call-1"}]
    with pytest.raises(InputError, match=r"the query \(\[\{'id': 'call-1', 'type': 'tool_use'\}\]\): a content block"):
        embeddings.embed_query(query)


STR_NUMBERS = [number for number, (value, _) in enumerate(HOSTILE) if isinstance(value, str)]
VIDEO_NUMBERS = [number for number in STR_NUMBERS if not HOSTILE[number][0].startswith("data:")]


@pytest.mark.parametrize("number", VIDEO_NUMBERS)
def test_hostile_video_in_metadata_is_an_item_error(number: int, allowed: Path, server: Server) -> None:
    """The same references as videos are rejected before a container is opened."""
    server.pages["/a.png"] = (200, {}, b"secret")
    video, _ = reference(number, allowed, server)
    policy = MediaPolicy(folders=(allowed,))
    store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny", policy=policy))
    documents = [Document("a red star"), Document("", metadata={"video": video})]
    with pytest.raises(BatchError, match="1 of 2") as caught:
        add_documents(store, documents)
    assert caught.value.errors[0].index == 1
    assert len(store.store) == 1
    reranked = Qwen3VLReranker(model="tiny", policy=policy, top_n=None).compress_documents(documents, "a red star")
    assert reranked[-1].metadata["rerank_error"]
    assert server.requested_paths == []


@pytest.mark.parametrize("hostile", STR_NUMBERS, indirect=True)
def test_hostile_query_is_an_input_error(hostile: tuple[Any, str, Server], allowed: Path) -> None:
    image, reason, server = hostile
    policy = MediaPolicy(folders=(allowed,))
    embeddings = Qwen3VLEmbeddings(model="tiny", policy=policy)
    queries: list[Any] = [{"image": image}, [{"type": "image", "url": image}]]
    for query in queries:
        with pytest.raises(InputError, match="the query") as caught:
            embeddings.embed_query(query)
        assert reason in str(caught.value)
        with pytest.raises(InputError, match="the query"):
            Qwen3VLReranker(model="tiny", policy=policy).rerank(query, ["a"])
    with pytest.raises(BatchError):
        embeddings.embed_image(uris=[image])
    assert server.requested_paths == []


def test_redirect_to_a_private_address_is_rejected(server: Server) -> None:
    """The first host is allowed here, because tests have no public one; the redirect's target is not."""
    server.pages["/there"] = (302, {"location": "http://169.254.169.254/secret"}, b"")
    server.pages["/file"] = (302, {"location": "file:///etc/passwd"}, b"")
    policy = MediaPolicy(folders=(), private_hosts=True, hosts=("127.0.0.1",))
    reranker = Qwen3VLReranker(model="tiny", policy=policy)
    documents = [Document("", metadata={"image": server.url(path)}) for path in ("/there", "/file")]
    reasons = [document.metadata["rerank_error"] for document in reranker.compress_documents(documents, "a")]
    assert "169.254.169.254" in reasons[0]
    assert "only http(s) is fetched" in reasons[1]


def test_policy_without_folders_is_rejected(library_folder: Path) -> None:
    """A policy that sets another limit only must not open every file."""
    for policy in (MediaPolicy(timeout=5), {"max_bytes": 1000}):
        with pytest.raises(ValidationError, match="names no folders"):
            Qwen3VLEmbeddings(model="tiny", policy=policy)  # type: ignore[arg-type]
        with pytest.raises(ValidationError, match="names no folders"):
            Qwen3VLReranker(model="tiny", policy=policy)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names no folders"):
        content_blocks([], policy=MediaPolicy())


@pytest.mark.engine
@pytest.mark.skipif(os.name != "posix", reason="decoder processes inherit file descriptors")
def test_policy_with_folders_decodes_in_processes_of_its_own(library_folder: Path, decoder_leases: list[str]) -> None:
    """Naming folders is the only way to open files, and must not lift the limits on what a file costs."""
    document = Document("", metadata={"image": str(library_folder / "star.png")})
    for isolated in (None, False):
        policy = MediaPolicy(folders=(library_folder,), isolated=isolated)
        for use in (
            lambda policy: Qwen3VLEmbeddings(model="tiny", policy=policy).collect([document]).ok.all(),
            lambda policy: Qwen3VLReranker(model="tiny", policy=policy, on_error="raise").rerank("a", [document]),
            lambda policy: content_blocks([document], policy=policy),
        ):
            decoder_leases.clear()
            assert use(policy)
            assert bool(decoder_leases) is (isolated is None)


def test_single_folder_and_host_may_be_a_str(library_folder: Path) -> None:
    policy = MediaPolicy(folders=str(library_folder), hosts="example.com")
    assert (policy.folders, policy.hosts) == ((str(library_folder),), ("example.com",))
    with pytest.raises(InputError, match="outside the folders"):
        Qwen3VLEmbeddings(model="tiny", policy=policy).embed_query({"image": "/etc/hostname"})


def test_no_file_is_read_by_default_and_texts_are_never_references(library_folder: Path) -> None:
    image = str(library_folder / "star.png")
    default = Qwen3VLEmbeddings(model="tiny")
    with pytest.raises(Qwen3VLError, match=r"MediaPolicy\(folders="):
        default.embed_image([image])
    allowing = Qwen3VLEmbeddings(model="tiny", policy=MediaPolicy(folders=(library_folder,)))
    assert len(allowing.embed_image([image])) == 1
    for text in (image, f"file://{image}", "http://127.0.0.1/a.png", '{"image": "/etc/passwd"}', data_uri(png(1, 1))):
        assert allowing.embed_query(text) == allowing.embedder.embed([{"text": text}])[0].tolist()
        assert allowing.embed_documents([text])[0] == allowing.embed_query(text)
