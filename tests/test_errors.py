"""Bad items cost only themselves, and say what they are."""

from __future__ import annotations

import base64
import re
import struct
import threading
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen3vl import BatchError, Embedder, InputError, MediaPolicy, Reranker
from qwen3vl.media.fetch import is_public
from tests.support.engines import embedder_with
from tests.support.http_server import Server


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 1000) + b"IDAT"


def test_three_bad_of_sixteen(golden_embedder: Embedder, media: dict[str, Path], tmp_path: Path) -> None:
    good: list[Any] = [f"passage number {number}" for number in range(6)]
    good += [{"image": str(media[name])} for name in ("photo", "odd", "grey", "palette")]
    good += [{"image": str(media["square"]), "text": "a caption"}, {"video": [str(media["frame-00"])] * 4}]
    good += ["the last one"]
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(media["photo-jpeg"].read_bytes()[:900])
    bad = {2: {"image": truncated}, 7: {"image": str(tmp_path / "gone.png")}, 11: {"text": ""}}
    inputs = list(good)
    for index, value in sorted(bad.items()):
        inputs.insert(index, value)
    assert len(inputs) == 16
    clean = golden_embedder.embed(good)
    with pytest.raises(BatchError) as caught:
        golden_embedder.embed(inputs)
    first, second, third = caught.value.errors
    assert (first.index, first.source) == (2, str(truncated))
    assert "broken" in first.reason
    assert (second.index, second.source) == (7, str(tmp_path / "gone.png"))
    assert "does not exist" in second.reason
    assert third.index == 11
    assert "empty" in third.reason
    rest = np.delete(caught.value.results, list(bad), axis=0)
    np.testing.assert_allclose(rest, clean, atol=2e-6)
    assert np.isnan(caught.value.results[list(bad)]).all()
    collected = golden_embedder.embed(inputs, on_error="collect")
    assert collected.ok.tolist() == [index not in bad for index in range(16)]
    np.testing.assert_array_equal(collected.values, caught.value.results)


WRONG = [
    ({}, "it is empty"),
    ("", "it is empty"),
    ({"text": []}, "it is empty"),
    ({"text": ["", ""]}, "it is empty"),
    ({"txt": "a"}, "unknown key 'txt'"),
    (17, "this is int"),
    (None, "this is NoneType"),
    ({"text": 5}, "'text' must be a str"),
    ({"image": 5}, "an image is a path"),
    ({"image": ""}, "empty string"),
    ({"image": "s3://bucket/key.png"}, "URLs of this kind are not opened"),
    ({"image": "data:image/png;base64,@@@"}, "does not hold valid data"),
    ({"image": "data:image/png"}, "no comma"),
    ({"image": b"not a picture"}, "not a picture that can be read"),
    ({"image": np.zeros((4, 4, 3), dtype=np.float32)}, "dtype uint8"),
    ({"image": np.zeros((0, 4, 3), dtype=np.uint8)}, "has no pixels"),
    ({"image": Image.new("RGB", (2010, 10))}, "201 times"),
    ({"image": png_header(60_000, 60_000)}, "60000 x 60000 pixels|too large to be opened safely"),
    ({"video": b"not a clip"}, "not a clip that can be read"),
    ({"video": []}, "it is empty"),
    ({"video": [[]]}, "empty list of frames"),
    ({"video": [Image.new("RGB", (64, 64)), Image.new("RGB", (640, 64))]}, "different sizes"),
    ({"text": "a", "fps": 0}, "'fps' must be"),
    ({"text": "a", "max_frames": 1}, "'max_frames' must be"),
    ({"text": "a", "instruction": 3}, "'instruction' must be"),
]


@pytest.mark.parametrize(("value", "reason"), WRONG, ids=range(len(WRONG)))
def test_each_has_its_own_message(value: Any, reason: str, golden_embedder: Embedder) -> None:
    batch = golden_embedder.embed(["before", value, "after"], on_error="collect")
    assert batch.ok.tolist() == [True, False, True]
    (error,) = batch.errors
    assert error.index == 1
    assert re.search(reason, error.reason), error.reason


def test_playlists_are_not_clips(golden_embedder: Embedder, tmp_path: Path) -> None:
    """FFmpeg would open what a playlist names."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\nfile://{secret}\n")
    (error,) = golden_embedder.embed([{"video": playlist}], on_error="collect").errors
    assert "not a clip that can be read" in error.reason


class TestPolicy:
    def embed(self, checkpoints: Path, policy: MediaPolicy, value: Any) -> str:
        """The reason for which one input fails; empty if it does not."""
        embedder = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
        batch = embedder.embed([value], on_error="collect")
        return batch.errors[0].reason if batch.errors else ""

    def test_private_addresses(self, checkpoints: Path, server: Server, media: dict[str, Path]) -> None:
        server.pages["/a.png"] = (200, {}, media["odd"].read_bytes())
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433"):
            reason = self.embed(checkpoints, MediaPolicy(), {"image": server.url("/a.png", host)})
            assert "not a public address" in reason or "cannot be found" in reason
        for host in ("10.0.0.1", "169.254.169.254", "192.168.1.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
            reason = self.embed(checkpoints, MediaPolicy(), {"image": f"http://{host}/a.png"})
            assert "not a public address" in reason
        assert server.asked == []

    def test_allowed_private_host(self, checkpoints: Path, server: Server, media: dict[str, Path]) -> None:
        server.pages["/a.png"] = (200, {}, media["odd"].read_bytes())
        policy = MediaPolicy(private_hosts=True)
        embedder = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
        fetched, read = embedder.embed([{"image": server.url("/a.png")}, {"image": media["odd"]}])
        np.testing.assert_allclose(fetched, read, atol=2e-6)

    def test_redirect_is_checked_like_the_first(self, checkpoints: Path, server: Server) -> None:
        server.pages["/there"] = (302, {"location": "http://169.254.169.254/secret"}, b"")
        policy = MediaPolicy(private_hosts=True, hosts=("127.0.0.1",))
        reason = self.embed(checkpoints, policy, {"image": server.url("/there")})
        assert "169.254.169.254 is not among those" in reason
        server.pages["/file"] = (302, {"location": "file:///etc/passwd"}, b"")
        reason = self.embed(checkpoints, policy, {"image": server.url("/file")})
        assert "only http(s) is fetched" in reason

    def test_redirect_to_a_private_address(
        self, checkpoints: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From a host that counts as public: this machine alone, for tests have no other."""
        monkeypatch.setattr(
            "qwen3vl.media.fetch.is_public", lambda address: address == "127.0.0.1" or is_public(address)
        )
        for place in ("10.0.0.1", "169.254.169.254", "[::1]"):
            server.pages["/there"] = (302, {"location": f"http://{place}/secret"}, b"")
            reason = self.embed(checkpoints, MediaPolicy(), {"image": server.url("/there")})
            assert "which is not a public address" in reason
        assert set(server.asked) == {"/there"}

    def test_redirects_end(self, checkpoints: Path, server: Server) -> None:
        server.pages["/round"] = (302, {"location": "/round"}, b"")
        reason = self.embed(checkpoints, MediaPolicy(private_hosts=True), {"image": server.url("/round")})
        assert "more than 3 redirects" in reason
        assert len(server.asked) == 4

    def test_not_found(self, checkpoints: Path, server: Server) -> None:
        reason = self.embed(checkpoints, MediaPolicy(private_hosts=True), {"image": server.url("/nothing.png")})
        assert "the server answers 404" in reason

    def test_slow_server(self, checkpoints: Path, server: Server) -> None:
        server.pages["/slow"] = (200, {}, b"x" * 100)
        server.slow["/slow"] = 0.2
        policy = MediaPolicy(private_hosts=True, timeout=0.5)
        assert "within 0.5 seconds" in self.embed(checkpoints, policy, {"image": server.url("/slow")})

    def test_too_many_bytes(self, checkpoints: Path, server: Server, media: dict[str, Path]) -> None:
        policy = MediaPolicy(private_hosts=True, max_bytes=1000)
        body = media["photo"].read_bytes()
        server.pages["/told"] = (200, {"content-length": str(len(body))}, body)
        server.pages["/untold"] = (200, {}, body)
        for value in (server.url("/told"), server.url("/untold"), body, str(media["photo"])):
            assert "the media policy allows" in self.embed(checkpoints, policy, {"image": value})

    def test_urls_off(self, checkpoints: Path) -> None:
        reason = self.embed(checkpoints, MediaPolicy(urls=False), {"image": "https://example.com/a.png"})
        assert "does not allow URLs" in reason

    def test_folders(self, checkpoints: Path, media: dict[str, Path], tmp_path: Path) -> None:
        link = tmp_path / "link.png"
        link.symlink_to(media["odd"])
        policy = MediaPolicy(folders=(tmp_path,))
        for value in (media["odd"], link, f"{tmp_path}/../{media['odd'].parent.name}/odd.png", media["odd"].as_uri()):
            assert "outside the folders" in self.embed(checkpoints, policy, {"image": str(value)})
        assert "outside the folders" in self.embed(checkpoints, policy, {"video": str(media["clip"])})
        (tmp_path / "own.png").write_bytes(media["odd"].read_bytes())
        assert self.embed(checkpoints, policy, {"image": tmp_path / "own.png"}) == ""

    def test_pixels_seconds_and_frames(self, checkpoints: Path, media: dict[str, Path]) -> None:
        policy = MediaPolicy(max_pixels=10_000, max_seconds=2, max_frames=3)
        assert "10000" in self.embed(checkpoints, policy, {"image": media["photo"]})
        frames = [Image.new("RGB", (64, 64))] * 4
        assert "allows 3" in self.embed(checkpoints, policy, {"video": frames})
        policy = MediaPolicy(max_seconds=2)
        assert "lasts 6 seconds" in self.embed(checkpoints, policy, {"video": media["clip"]})
        assert self.embed(checkpoints, policy, {"video": f"{media['clip']}#t=1,3"}) == ""


def test_same_picture_in_every_dress(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    data = media["odd"].read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    picture = Image.open(media["odd"])
    dresses: list[Any] = [str(media["odd"]), media["odd"], media["odd"].as_uri(), uri, data, BytesIO(data), picture]
    dresses.append(np.asarray(picture))
    vectors = golden_embedder.embed([{"image": dress} for dress in dresses] + [media["odd"], picture, data])
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], len(vectors), axis=0), atol=2e-6)


def test_bad_query_is_named(golden_reranker: Reranker) -> None:
    with pytest.raises(InputError, match="the query"):
        golden_reranker.score({"image": "/nowhere/at/all.png"}, ["a"])


def test_document_errors(golden_reranker: Reranker, media: dict[str, Path]) -> None:
    documents: list[Any] = ["sand", {"image": "/nowhere.png"}, {"image": media["photo"]}]
    batch = golden_reranker.score("beach", documents, on_error="collect")
    assert batch.ok.tolist() == [True, False, True]
    ranked = golden_reranker.rank("beach", documents, on_error="collect")
    assert [document.index for document in ranked][-1] == 1
    assert ranked[-1].score is None
    assert str(ranked[-1].error) == str(batch.errors[0])
    assert [index for index, _ in ranked[:2]] == sorted((0, 2), key=lambda index: -batch.values[index])
    with pytest.raises(BatchError):
        golden_reranker.rank("beach", documents)


def test_many_threads_share_one_embedder(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    inputs: list[Any] = ["one", {"image": media["odd"]}, "a longer text than the others", {"image": media["tiny"]}]
    expected = golden_embedder.embed(inputs)
    found: list[Any] = [None] * 8

    def work(place: int) -> None:
        found[place] = golden_embedder.embed(inputs)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for vectors in found:
        np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_a_server_that_drips_headers(golden_embedder: Embedder, checkpoints: Path) -> None:
    """The deadline holds for all of a fetch, not for each read."""
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 200:
                        connection.send(bytes([byte]))
                        time.sleep(0.05)
                except OSError:
                    pass

        threading.Thread(target=drip, daemon=True).start()
        policy = MediaPolicy(private_hosts=True, timeout=0.5)
        embedder = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/a.png"
        (error,) = embedder.embed([{"image": url}], on_error="collect").errors
    assert "within 0.5 seconds" in error.reason


@pytest.mark.parametrize(
    "address", ["192.0.0.192", "64:ff9b:1::1", "fec0::1", "::7f00:1", "::ffff:10.0.0.1", "224.0.0.1"]
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("1.1.1.1")
    assert is_public("2606:4700:4700::1111")


class Odd:
    """A path-like object whose path is bytes."""

    def __fspath__(self) -> bytes:
        return b"x.png"


@pytest.mark.parametrize(
    "value", [{"video": ["http://[bad"]}, {"image": "file://[bad"}, Odd(), {"image": "~backup.png"}]
)
def test_odd_objects_cost_only_themselves(value: Any, golden_embedder: Embedder) -> None:
    batch = golden_embedder.embed(["before", value, "after"], on_error="collect")
    assert batch.ok.tolist() == [True, False, True]


def test_a_single_input_stands_for_itself(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    pixels = np.asarray(Image.open(media["odd"]))
    for single in (
        "text",
        {"text": "a"},
        pixels,
        BytesIO(media["odd"].read_bytes()),
        Image.open(media["odd"]),
        media["odd"],
    ):
        assert golden_embedder.embed(single).shape == (1, 96)
    assert golden_embedder.embed([]).shape == (0, 96)
    assert golden_embedder.embed(str(number) for number in range(3)).shape == (3, 96)


def test_lazy_and_reused_pictures(golden_embedder: Embedder, golden_reranker: Reranker, media: dict[str, Path]) -> None:
    """One object that Pillow has not decoded yet, shown by many items; and a buffer that the caller draws over."""
    lazy = Image.open(media["photo-jpeg"])
    texts = [f"document number {number} " * (1 + number % 9) for number in range(40)]
    eager = golden_reranker.score({"image": media["photo-jpeg"]}, texts)
    np.testing.assert_allclose(golden_reranker.score({"image": lazy}, texts), eager, atol=1e-5)
    buffer = np.zeros((64, 64), dtype=np.uint8)

    def drawn() -> Any:
        for value in (0, 90, 250):
            buffer[:] = value
            yield {"image": buffer}

    vectors = golden_embedder.embed(drawn())
    assert float(vectors[0] @ vectors[1]) < 0.9999
    assert float(vectors[0] @ vectors[2]) < 0.9999


def test_exif_turns_every_dress(checkpoints: Path, media: dict[str, Path]) -> None:
    picture = Image.open(media["odd"])
    exif = picture.getexif()
    exif[0x0112] = 6
    encoded = BytesIO()
    picture.save(encoded, "PNG", exif=exif)
    embedder = Embedder(checkpoints / "embedding", device="cpu", exif=True)
    turned = picture.transpose(Image.Transpose.ROTATE_270)
    by_bytes, by_object, by_hand = embedder.embed([encoded.getvalue(), Image.open(encoded), turned])
    np.testing.assert_allclose(by_object, by_bytes, atol=2e-6)
    np.testing.assert_allclose(by_hand, by_bytes, atol=2e-6)


def test_out_of_memory_is_recovered_by_running_halves(checkpoints: Path, golden_embedder: Embedder) -> None:
    """The device runs out of memory at more than 60 tokens, with the message of torch's allocator for CPUs."""

    def limited_forward(replica: Any, pack: Any, *args: Any, **options: Any) -> Any:
        if pack.num_tokens > 60:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return replica.execute(pack, *args, **options)

    embedder = embedder_with(checkpoints / "embedding", stages={"forward": limited_forward})
    texts = [f"text {number} " * 8 for number in range(6)]
    np.testing.assert_allclose(embedder.embed(texts), golden_embedder.embed(texts), atol=2e-6)


def test_failed_kernel_is_an_error_of_its_batch(checkpoints: Path) -> None:
    def failing_forward(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a kernel failed")

    embedder = embedder_with(checkpoints / "embedding", stages={"forward": failing_forward})
    batch = embedder.embed([f"text {number}" for number in range(6)], on_error="collect")
    assert len(batch.errors) == 6
    assert "a kernel failed" in batch.errors[0].reason


def test_many_pieces_take_linear_time(golden_embedder: Embedder) -> None:
    """A text of thousands of pieces is written in one walk over its tokens."""
    pieces = ["word "] * 5000
    batch = golden_embedder.embed([{"text": pieces}], on_error="collect")
    assert batch.ok.all()
    np.testing.assert_allclose(
        batch.values, golden_embedder.embed("".join(pieces), on_error="collect").values, atol=2e-6
    )


def test_negative_top_n(golden_reranker: Reranker) -> None:
    with pytest.raises(ValueError, match="top_n is -1"):
        golden_reranker.rank("a", ["b"], top_n=-1)
    assert golden_reranker.rank("a", ["b"], top_n=0) == []


def test_unknown_device(checkpoints: Path) -> None:
    with pytest.raises(ValueError, match="the device 'nonsense' cannot be used here"):
        Embedder(checkpoints / "embedding", device="nonsense")
