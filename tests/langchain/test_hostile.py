"""References that come with other people's documents reach nothing that the application did not allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLReranker, add_documents, content_blocks
from pydantic import ValidationError

from qwen3vl import BatchError, InputError, MediaPolicy, Qwen3VLError
from tests.support.hostile_media import HOSTILE, data_uri, png, prepare, reference
from tests.support.http_server import Server


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("allowed"))


@pytest.fixture(params=range(len(HOSTILE)))
def hostile(request: pytest.FixtureRequest, allowed: Path, server: Server) -> tuple[Any, str, Server]:
    server.pages["/a.png"] = (200, {}, b"secret")
    return (*reference(request.param, allowed, server), server)


def test_in_metadata(hostile: tuple[Any, str, Server], allowed: Path) -> None:
    reference, reason, server = hostile
    policy = MediaPolicy(folders=(allowed,))
    store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny", policy=policy))
    documents = [Document("a red star"), Document("", metadata={"image": reference}), Document("a green circle")]
    with pytest.raises(BatchError, match="1 of 3") as caught:
        add_documents(store, documents)
    assert reason in caught.value.errors[0].reason
    assert caught.value.errors[0].index == 1
    assert len(store.store) == 2
    kept = Qwen3VLReranker(model="tiny", policy=policy, top_n=None).compress_documents(documents, "a red star")
    assert reason in kept[-1].metadata["rerank_error"]
    assert all("relevance_score" in each.metadata for each in kept[:2])
    with pytest.raises(BatchError, match="1 of 3"):
        Qwen3VLReranker(model="tiny", policy=policy, on_error="raise").compress_documents(documents, "a red star")
    if isinstance(reference, str):
        assert content_blocks(documents[1:2], policy=policy) == []
    else:
        with pytest.raises(InputError, match=reason):
            content_blocks(documents[1:2], policy=policy)
    assert server.requested_paths == []


CLIPS = [
    number for number, (given, _) in enumerate(HOSTILE) if isinstance(given, str) and not given.startswith("data:")
]


@pytest.mark.parametrize("number", CLIPS)
def test_clips_in_metadata(number: int, allowed: Path, server: Server) -> None:
    """The same references as clips: refused before a container is opened."""
    server.pages["/a.png"] = (200, {}, b"secret")
    given, _ = reference(number, allowed, server)
    policy = MediaPolicy(folders=(allowed,))
    store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny", policy=policy))
    documents = [Document("a red star"), Document("", metadata={"video": given})]
    with pytest.raises(BatchError, match="1 of 2") as caught:
        add_documents(store, documents)
    assert caught.value.errors[0].index == 1
    assert len(store.store) == 1
    kept = Qwen3VLReranker(model="tiny", policy=policy, top_n=None).compress_documents(documents, "a red star")
    assert kept[-1].metadata["rerank_error"]
    assert server.requested_paths == []


def test_in_queries(hostile: tuple[Any, str, Server], allowed: Path) -> None:
    reference, reason, server = hostile
    if not isinstance(reference, str):
        return
    policy = MediaPolicy(folders=(allowed,))
    embeddings = Qwen3VLEmbeddings(model="tiny", policy=policy)
    asked: list[Any] = [{"image": reference}, [{"type": "image", "url": reference}]]
    for query in asked:
        with pytest.raises(InputError, match="the query") as caught:
            embeddings.embed_query(query)
        assert reason in str(caught.value)
        with pytest.raises(InputError, match="the query"):
            Qwen3VLReranker(model="tiny", policy=policy).rerank(query, ["a"])
    with pytest.raises(BatchError):
        embeddings.embed_image(uris=[reference])
    assert server.requested_paths == []


def test_a_redirect_to_a_private_address(server: Server) -> None:
    """The first host is allowed here, because tests have no public one; what it redirects to is not."""
    server.pages["/there"] = (302, {"location": "http://169.254.169.254/secret"}, b"")
    server.pages["/file"] = (302, {"location": "file:///etc/passwd"}, b"")
    policy = MediaPolicy(folders=(), private_hosts=True, hosts=("127.0.0.1",))
    ours = Qwen3VLReranker(model="tiny", policy=policy)
    documents = [Document("", metadata={"image": server.url(path)}) for path in ("/there", "/file")]
    reasons = [each.metadata["rerank_error"] for each in ours.compress_documents(documents, "a")]
    assert "169.254.169.254" in reasons[0]
    assert "only http(s) is fetched" in reasons[1]


def test_a_policy_has_to_name_its_folders(mixed: Path) -> None:
    """Tightening a limit is not to open the disk, nor is a comma that was forgotten."""
    for given in (MediaPolicy(timeout=5), {"max_bytes": 1000}):
        with pytest.raises(ValidationError, match="names no folders"):
            Qwen3VLEmbeddings(model="tiny", policy=given)  # type: ignore[arg-type]
        with pytest.raises(ValidationError, match="names no folders"):
            Qwen3VLReranker(model="tiny", policy=given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names no folders"):
        content_blocks([], policy=MediaPolicy())
    one = MediaPolicy(folders=str(mixed), hosts="example.com")  # type: ignore[arg-type]
    assert (one.folders, one.hosts) == ((str(mixed),), ("example.com",))
    with pytest.raises(InputError, match="outside the folders"):
        Qwen3VLEmbeddings(model="tiny", policy=one).embed_query({"image": "/etc/hostname"})


def test_nothing_is_open_until_named(mixed: Path) -> None:
    """By default not one file of this machine; and a text is never taken for a reference."""
    star = str(mixed / "star.png")
    plain = Qwen3VLEmbeddings(model="tiny")
    with pytest.raises(Qwen3VLError, match=r"MediaPolicy\(folders="):
        plain.embed_image([star])
    named = Qwen3VLEmbeddings(model="tiny", policy=MediaPolicy(folders=(mixed,)))
    assert len(named.embed_image([star])) == 1
    for text in (star, f"file://{star}", "http://127.0.0.1/a.png", '{"image": "/etc/passwd"}', data_uri(png(1, 1))):
        assert named.embed_query(text) == named.embedder.embed([{"text": text}])[0].tolist()
        assert named.embed_documents([text])[0] == named.embed_query(text)
