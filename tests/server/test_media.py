"""`/v1/media`: what points show, by their ids, within the media policy, and as nothing that a browser would run."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from qwen3vl_server.library import ranges
from qwen3vl_server.library.media_types import detect, suffix_for
from qwen3vl_server.library.signing import MediaSigner

from qwen3vl import Document, Embedder, open_store
from qwen3vl.stores import Point, Store
from tests.support.http_server import Server
from tests.support.library_server import LibraryServer, serve_library
from tests.support.model_server import ModelServer, wait_until


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    with serve_library(tmp_path_factory.mktemp("media")) as library:
        yield library


def get(library: LibraryServer, point_id: str, name: str, **headers: str) -> httpx.Response:
    return library.server.client.get(f"/v1/media/{point_id}/{name}", headers=headers)


def assert_safe(response: httpx.Response) -> None:
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_picture_is_the_original_file(library: LibraryServer) -> None:
    for name, media_type in (("star.png", "image/png"), ("1.jpg", "image/jpeg"), ("2.webp", "image/webp")):
        response = get(library, library.point(name), "image")
        assert response.content == (library.files / name).read_bytes()
        assert response.headers["Content-Type"] == media_type
        assert_safe(response)
    # One path, whatever the point. A request is counted after its last byte was sent, when the client has its answer.
    line = 'qwen3vl_requests_total{path="/v1/media/{point_id}/image",status="200"} 3.0'
    wait_until(lambda: line in library.server.client.get("/metrics").text)


def test_thumbnails_are_small_pictures_of_every_kind_but_text(library: LibraryServer) -> None:
    for name, locator in (("star.png", ""), ("slides.pdf", "page=2"), ("mover.mp4", "")):
        response = get(library, library.point(name, locator), "thumbnail")
        assert response.headers["Content-Type"] == "image/jpeg"
        assert_safe(response)
        assert max(Image.open(BytesIO(response.content)).size) <= 402  # with the gap of a contact sheet
        assert get(library, library.point(name, locator), "thumbnail").content == response.content
    response = get(library, library.point("notes.md"), "thumbnail")
    assert response.status_code == 404
    assert "no picture" in response.json()["message"]


def test_page_of_a_pdf_is_rendered_at_full_size(library: LibraryServer) -> None:
    response = get(library, library.point("slides.pdf", "page=2"), "image")
    assert response.headers["Content-Type"] == "image/png"
    assert Image.open(BytesIO(response.content)).size == (1684, 1684)
    assert get(library, library.point("slides.pdf", "page=2"), "video").status_code == 404


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-", 0, None),
        ("bytes=100-199", 100, 200),
        ("bytes=100-999999999999", 100, None),
        ("bytes=-50", -50, None),
        ("bytes=-999999999999", 0, None),
    ],
)
def test_parts_of_a_video(library: LibraryServer, header: str, start: int, stop: int | None) -> None:
    content = (library.files / "mover.mp4").read_bytes()
    response = get(library, library.point("mover.mp4"), "video", Range=header)
    assert response.status_code == 206
    assert response.content == content[start:stop]
    first = start % len(content)
    last = first + len(response.content) - 1
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"
    assert response.headers["Content-Type"] == "video/mp4"
    assert_safe(response)


def test_video_from_a_url_is_fetched_once_for_all_its_parts(library: LibraryServer) -> None:
    content = (library.files / "mover.mp4").read_bytes()
    policy = replace(SERVER_POLICY, urls=True, private_hosts=True)
    with Server() as other, Embedder("tiny", device="cpu", policy=policy) as embedder:
        other.pages["/clip.mp4"] = (200, {"Content-Length": str(len(content))}, content)
        store = open_store(":memory:")
        url = other.url("/clip.mp4")
        documents = {name: Document(url, "clip", locator=name, video=f"{url}#t={name}") for name in ("0,1", "1,2")}
        ids = write(store, embedder, documents)
        with ModelServer(create_app(embedder=embedder, store=store)) as server:
            for name in ("0,1", "1,2"):
                for start in (0, 1000, 2000):
                    headers = {"Range": f"bytes={start}-"}
                    response = server.client.get(f"/v1/media/{ids[name]}/video", headers=headers)
                    assert (response.status_code, response.content) == (206, content[start:])
                    assert response.headers["Content-Type"] == "video/mp4"
        assert len(other.requested_paths) == 2  # whoever begins to play it gets what is there now


def test_whole_video_and_ranges_that_are_none(library: LibraryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (library.files / "mover.mp4").read_bytes()
    point_id = library.point("mover.mp4")
    for header in (
        "",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "items=0-1",
        "bytes=0-1,3-4",
        "bytes=1-2-3",
        "bytes=" + "9" * 30,
    ):
        response = get(library, point_id, "video", Range=header)
        assert (response.status_code, response.content) == (200, content), header
        assert response.headers["Accept-Ranges"] == "bytes"
    for header in (f"bytes={len(content)}-", "bytes=5-4", "bytes=-0"):
        assert get(library, point_id, "video", Range=header).status_code == 416
    monkeypatch.setattr(ranges, "MAX_PART_BYTES", 1000)
    response = get(library, point_id, "video", Range="bytes=0-")
    assert response.headers["Content-Range"] == f"bytes 0-999/{len(content)}"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/media/../../etc/passwd",
        "/v1/media/%2e%2e%2f%2e%2e%2fetc%2fpasswd/image",
        "/v1/media/..%2F..%2Fetc%2Fpasswd/thumbnail",
        "/v1/media//etc/passwd/image",
        "/v1/media/00000000-0000-4000-8000-000000000000/image",
        "/v1/media/{upper}/image",
        "/v1/media/{hex}/image",
        "/v1/media/{id}%00/image",
        "/v1/media/{id}/../../v1/models/image",
        "/v1/media/{id}/file",
        "/v1/media/{id}/image/",
        "/page/..%2Froutes.py",
        "/page/%2e%2e/routes.py",
        "/page/routes.py",
        "/page//etc/passwd",
    ],
)
def test_paths_lead_to_no_file(library: LibraryServer, path: str) -> None:
    point_id = library.point("star.png")
    target = path.format(id=point_id, upper=point_id.upper(), hex=point_id.replace("-", ""))
    connection = httpx.Client(base_url=library.server.url)
    request = connection.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=target.encode())
    response = connection.send(request)
    assert response.status_code in (404, 405, 307), response.text
    assert b"root:" not in response.content


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModelServer, dict[str, str]]]:
    """A store whose points, written by a stranger, refer to what they must not show; ids by name."""
    folder = tmp_path_factory.mktemp("hostile")
    allowed, outside = folder / "allowed", folder / "outside"
    for path in (allowed, outside):
        path.mkdir()
    Image.new("RGB", (8, 8), "red").save(outside / "secret.png")
    (allowed / "link.png").symlink_to(outside / "secret.png")
    (allowed / "page.png").write_text("<html><script>alert(1)</script></html>")
    (allowed / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>')
    (allowed / "page.mp4").write_text("<html><script>alert(1)</script></html>")
    (allowed / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    Image.new("RGB", (30, 20), "blue").save(allowed / "scan.tiff")
    svg = base64.b64encode((allowed / "drawing.svg").read_bytes()).decode()
    thumbnail = BytesIO()
    Image.new("RGB", (9, 9), "green").save(thumbnail, "JPEG")
    stored = f"data:image/jpeg;base64,{base64.b64encode(thumbnail.getvalue()).decode()}"
    documents = {
        "secret": Document(str(outside / "secret.png"), "picture", image=str(outside / "secret.png")),
        "traversal": Document("t", "picture", image=f"{allowed}/../outside/secret.png"),
        "link": Document("l", "picture", image=str(allowed / "link.png")),
        "passwd": Document("p", "picture", image="/etc/passwd"),
        "passwd-page": Document("p", "page", image="/etc/passwd#page=1"),
        "passwd-video": Document("v", "clip", video="file:///etc/passwd"),
        "url": Document("u", "picture", image="http://127.0.0.1:1/x.png"),
        "html": Document("h", "picture", image=str(allowed / "page.png")),
        "svg": Document("s", "picture", image=str(allowed / "drawing.svg")),
        "svg-uri": Document("s2", "picture", image=f"data:image/svg+xml;base64,{svg}"),
        "html-video": Document("hv", "clip", video=str(allowed / "page.mp4")),
        "picture-video": Document("pv", "clip", video=str(allowed / "scan.tiff")),
        "broken": Document("b", "picture", image=str(allowed / "broken.png")),
        "missing": Document("m", "picture", image=str(allowed / "missing.png")),
        "folder": Document("f", "picture", image=str(allowed)),
        "tiff": Document("tiff", "picture", image=str(allowed / "scan.tiff")),
        "thumbnail": Document("th", "picture", image="/gone.png", metadata={"thumbnail": stored}),
        "bad-thumbnail": Document("bt", "picture", image="/gone.png", metadata={"thumbnail": "/etc/passwd"}),
    }
    policy = replace(SERVER_POLICY, folders=(allowed,))
    with Embedder("tiny", device="cpu", policy=policy) as embedder:
        store = open_store(":memory:")
        ids = write(store, embedder, documents)
        with ModelServer(create_app(embedder=embedder, store=store)) as server:
            yield server, ids


def write(store: Store, embedder: Embedder, documents: dict[str, Document]) -> dict[str, str]:
    store.create(embedder.recipe)
    vector = np.ones(embedder.dimension, dtype=np.float32)
    ids = {name: store.point_id(document, embedder.recipe) for name, document in documents.items()}
    store.upsert([Point(ids[name], vector, document) for name, document in documents.items()])
    return ids


@pytest.mark.parametrize(
    ("name", "status"),
    [
        *((name, 403) for name in ("secret", "traversal", "link", "passwd", "passwd-page", "url")),
        *((name, 404) for name in ("html", "svg", "svg-uri", "missing", "folder")),
    ],
)
def test_media_that_are_not_shown(hostile: tuple[ModelServer, dict[str, str]], name: str, status: int) -> None:
    server, ids = hostile
    for kind in ("image", "thumbnail"):
        response = server.client.get(f"/v1/media/{ids[name]}/{kind}")
        assert response.status_code == status, response.text
        assert response.headers["Content-Type"] == "application/json"


def test_broken_picture_has_no_thumbnail(hostile: tuple[ModelServer, dict[str, str]]) -> None:
    server, ids = hostile
    assert server.client.get(f"/v1/media/{ids['broken']}/thumbnail").status_code == 404
    assert server.client.get(f"/v1/media/{ids['broken']}/image").headers["Content-Type"] == "image/png"


def test_videos_that_are_not_shown(hostile: tuple[ModelServer, dict[str, str]]) -> None:
    server, ids = hostile
    for name, status in (("passwd-video", 403), ("html-video", 404), ("picture-video", 404), ("tiff", 404)):
        assert server.client.get(f"/v1/media/{ids[name]}/video").status_code == status, name


def test_formats_that_browsers_do_not_show_become_png(hostile: tuple[ModelServer, dict[str, str]]) -> None:
    server, ids = hostile
    response = server.client.get(f"/v1/media/{ids['tiff']}/image")
    assert response.headers["Content-Type"] == "image/png"
    assert Image.open(BytesIO(response.content)).size == (30, 20)


def test_stored_thumbnail_is_shown_where_the_file_is_not(hostile: tuple[ModelServer, dict[str, str]]) -> None:
    server, ids = hostile
    response = server.client.get(f"/v1/media/{ids['thumbnail']}/thumbnail")
    assert Image.open(BytesIO(response.content)).size == (9, 9)
    assert server.client.get(f"/v1/media/{ids['bad-thumbnail']}/thumbnail").status_code == 403
    assert "thumbnail" not in server.client.get(f"/v1/documents/{ids['thumbnail']}").json()["metadata"]


def test_media_need_a_key_or_a_signed_url(tmp_path: Path) -> None:
    with serve_library(tmp_path, settings=ServerSettings(api_keys=("key", "other"))) as library:
        url, key = library.server.url, {"Authorization": "Bearer key"}
        point_id, other_id = library.point("star.png"), library.point("mover.mp4")
        assert httpx.get(f"{url}/v1/media/{point_id}/image").status_code == 401
        assert httpx.get(f"{url}/v1/media/{point_id}/image", headers=key).status_code == 200
        assert httpx.post(f"{url}/v1/search", json={"text": "a"}).status_code == 401
        library.server.client.headers.update(key)
        document = library.server.client.get(f"/v1/documents/{point_id}").json()
        signed = document["media"]["image"]
        assert httpx.get(url + signed).status_code == 200
        query = signed.partition("?")[2]
        for target in (
            f"/v1/media/{other_id}/video?{query}",
            f"/v1/media/{point_id}/image?{query[:-1]}",
            f"/v1/media/{point_id}/image?{query.replace('expires=', 'expires=9')}",
            f"/v1/media/{point_id}/image?{query.partition('&')[2]}",
            f"/v1/media/{point_id}/image?{'a=1&' * 20}{query}",
            f"/v1/documents/{point_id}?{query}",
        ):
            assert httpx.get(url + target).status_code == 401, target
        for path in ("/", "/page/app.js", "/health"):
            assert httpx.get(url + path).status_code == 200, path


def test_signatures_end_after_one_to_two_hours() -> None:
    now = 1_000_000.0
    signer = MediaSigner(("a", "b"), lambda: now)
    query = signer.query("id").removeprefix("?")
    assert MediaSigner(("b", "a"), lambda: now + 3600).accepts("id", query)
    assert not MediaSigner(("b", "a"), lambda: now + 7200).accepts("id", query)
    assert not MediaSigner(("a",), lambda: now).accepts("id", query)
    for other in ("expires=²&signature=a", "expires=1e9&signature=a", "signature=é", ""):
        assert not signer.accepts("id", other)
    assert MediaSigner(()).accepts("id", "")
    assert MediaSigner(()).query("id") == ""


def test_types_of_files() -> None:
    assert detect(b"<svg xmlns=") is None
    assert detect(b"<!doctype html>") is None
    assert detect(b"\x1a\x45\xdf\xa3....webm").name == "video/webm"  # type: ignore[union-attr]
    names = {"a.PNG": ".png", "b.exe": ".jpg", "c": ".jpg", "d.txt": ".txt", "e/../f.md": ".md", "g.html": ".jpg"}
    assert {name: suffix_for(name, b"\xff\xd8\xff\xe0") for name in names} == names
    assert suffix_for("page.html", b"<html>") == ""
