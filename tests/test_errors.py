"""A bad item is an error with its index, source and reason; the other items are not affected."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen3vl import BatchError, Embedder, InputError, MediaError, MediaPolicy, PolicyError, Reranker
from qwen3vl.media.addresses import is_public
from qwen3vl.media.fetch import fetch
from qwen3vl.media.source import check_file
from tests.support.engines import embedder_with
from tests.support.hostile_media import png
from tests.support.http_server import Server


def test_bad_items_leave_the_other_vectors_unchanged(
    golden_embedder: Embedder, media: dict[str, Path], tmp_path: Path
) -> None:
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
    expected = golden_embedder.embed(good)
    with pytest.raises(BatchError) as caught:
        golden_embedder.embed(inputs)
    first, second, third = caught.value.errors
    assert (first.index, first.source) == (2, str(truncated))
    assert "broken" in first.reason
    assert (second.index, second.source) == (7, str(tmp_path / "gone.png"))
    assert "does not exist" in second.reason
    assert third.index == 11
    assert "empty" in third.reason
    results_of_good = np.delete(caught.value.results, list(bad), axis=0)
    np.testing.assert_allclose(results_of_good, expected, atol=2e-6)
    assert np.isnan(caught.value.results[list(bad)]).all()
    collected = golden_embedder.embed(inputs, on_error="collect")
    assert collected.ok.tolist() == [index not in bad for index in range(16)]
    np.testing.assert_array_equal(collected.values, caught.value.results)


INVALID_INPUTS = [
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
    ({"image": b"not an image"}, "not an image that can be read"),
    ({"image": np.zeros((4, 4, 3), dtype=np.float32)}, "dtype uint8"),
    ({"image": np.zeros((0, 4, 3), dtype=np.uint8)}, "has no pixels"),
    ({"image": Image.new("RGB", (2010, 10))}, "201 times"),
    ({"image": png(60_000, 60_000)}, "too large to be opened safely"),
    ({"video": b"not a video"}, "not a video that can be read"),
    ({"video": []}, "it is empty"),
    ({"video": [[]]}, "empty list of frames"),
    ({"video": [Image.new("RGB", (64, 64)), Image.new("RGB", (640, 64))]}, "different sizes"),
    ({"text": "a", "fps": 0}, "'fps' must be"),
    ({"text": "a", "max_frames": 1}, "'max_frames' must be"),
    ({"text": "a", "instruction": 3}, "'instruction' must be"),
]


@pytest.mark.parametrize(("value", "reason"), INVALID_INPUTS, ids=range(len(INVALID_INPUTS)))
def test_invalid_input_is_an_item_error_with_its_reason(value: Any, reason: str, golden_embedder: Embedder) -> None:
    batch = golden_embedder.embed(["before", value, "after"], on_error="collect")
    assert batch.ok.tolist() == [True, False, True]
    (error,) = batch.errors
    assert error.index == 1
    assert re.search(reason, error.reason), error.reason


def test_playlist_is_not_opened_as_a_video(golden_embedder: Embedder, tmp_path: Path) -> None:
    """FFmpeg would open the files that a playlist names."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\nfile://{secret}\n")
    (error,) = golden_embedder.embed([{"video": playlist}], on_error="collect").errors
    assert "not a video that can be read" in error.reason


class TestPolicy:
    def error_reason(self, checkpoints: Path, policy: MediaPolicy, value: Any) -> str:
        """Return the reason for which one input fails; empty if it does not."""
        embedder = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
        batch = embedder.embed([value], on_error="collect")
        return batch.errors[0].reason if batch.errors else ""

    def test_addresses_that_are_not_public_are_not_fetched(
        self, checkpoints: Path, server: Server, media: dict[str, Path]
    ) -> None:
        server.pages["/a.png"] = (200, {}, media["odd"].read_bytes())
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433"):
            reason = self.error_reason(checkpoints, MediaPolicy(), {"image": server.url("/a.png", host)})
            assert "not a public address" in reason or "cannot be found" in reason
        for host in ("10.0.0.1", "169.254.169.254", "192.168.1.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
            reason = self.error_reason(checkpoints, MediaPolicy(), {"image": f"http://{host}/a.png"})
            assert "not a public address" in reason
        assert server.requested_paths == []

    def test_private_hosts_allows_the_loopback_address(
        self, checkpoints: Path, server: Server, media: dict[str, Path]
    ) -> None:
        server.pages["/a.png"] = (200, {}, media["odd"].read_bytes())
        policy = MediaPolicy(private_hosts=True)
        embedder = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
        fetched, read = embedder.embed([{"image": server.url("/a.png")}, {"image": media["odd"]}])
        np.testing.assert_allclose(fetched, read, atol=2e-6)

    def test_target_of_a_redirect_is_checked_like_the_url(self, checkpoints: Path, server: Server) -> None:
        server.pages["/there"] = (302, {"location": "http://169.254.169.254/secret"}, b"")
        policy = MediaPolicy(private_hosts=True, hosts=("127.0.0.1",))
        reason = self.error_reason(checkpoints, policy, {"image": server.url("/there")})
        assert "169.254.169.254 is not among those" in reason
        server.pages["/file"] = (302, {"location": "file:///etc/passwd"}, b"")
        reason = self.error_reason(checkpoints, policy, {"image": server.url("/file")})
        assert "only http(s) is fetched" in reason

    @pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[::1]"])
    def test_redirect_to_a_private_address_is_refused(self, server: Server, host: str) -> None:
        """Tests have no public host to redirect from, so the loopback address counts as public here."""
        server.pages["/there"] = (302, {"location": f"http://{host}/secret"}, b"")

        def allow_address(address: str) -> bool:
            return address == "127.0.0.1" or is_public(address)

        with pytest.raises(PolicyError, match="which is not a public address"):
            fetch(server.url("/there"), MediaPolicy(), allow_address=allow_address)
        assert server.requested_paths == ["/there"]

    def test_number_of_redirects_is_limited(self, checkpoints: Path, server: Server) -> None:
        server.pages["/round"] = (302, {"location": "/round"}, b"")
        reason = self.error_reason(checkpoints, MediaPolicy(private_hosts=True), {"image": server.url("/round")})
        assert "more than 3 redirects" in reason
        assert len(server.requested_paths) == 4

    def test_error_status_is_named(self, checkpoints: Path, server: Server) -> None:
        reason = self.error_reason(checkpoints, MediaPolicy(private_hosts=True), {"image": server.url("/nothing.png")})
        assert "the server answers 404" in reason

    def test_slow_body_ends_at_the_timeout(self, checkpoints: Path, server: Server) -> None:
        server.pages["/slow"] = (200, {}, b"x" * 100)
        server.byte_delays["/slow"] = 0.2
        policy = MediaPolicy(private_hosts=True, timeout=0.5)
        assert "within 0.5 seconds" in self.error_reason(checkpoints, policy, {"image": server.url("/slow")})

    def test_bytes_are_limited_with_and_without_content_length(
        self, checkpoints: Path, server: Server, media: dict[str, Path]
    ) -> None:
        policy = MediaPolicy(private_hosts=True, max_bytes=1000)
        body = media["photo"].read_bytes()
        server.pages["/with-length"] = (200, {"content-length": str(len(body))}, body)
        server.pages["/without-length"] = (200, {}, body)
        for value in (server.url("/with-length"), server.url("/without-length"), body, str(media["photo"])):
            assert "the media policy allows" in self.error_reason(checkpoints, policy, {"image": value})

    def test_urls_can_be_forbidden(self, checkpoints: Path) -> None:
        reason = self.error_reason(checkpoints, MediaPolicy(urls=False), {"image": "https://example.com/a.png"})
        assert "does not allow URLs" in reason

    def test_files_outside_the_folders_are_not_opened(
        self, checkpoints: Path, media: dict[str, Path], tmp_path: Path
    ) -> None:
        link = tmp_path / "link.png"
        link.symlink_to(media["odd"])
        policy = MediaPolicy(folders=(tmp_path,))
        for value in (media["odd"], link, f"{tmp_path}/../{media['odd'].parent.name}/odd.png", media["odd"].as_uri()):
            assert "outside the folders" in self.error_reason(checkpoints, policy, {"image": str(value)})
        assert "outside the folders" in self.error_reason(checkpoints, policy, {"video": str(media["clip"])})
        (tmp_path / "own.png").write_bytes(media["odd"].read_bytes())
        assert self.error_reason(checkpoints, policy, {"image": tmp_path / "own.png"}) == ""

    def test_loop_of_links_is_named(self, tmp_path: Path) -> None:
        """Python before 3.13 finds it when the path is resolved, later versions when the file is examined."""
        loop = tmp_path / "loop.png"
        loop.symlink_to(loop)
        with pytest.raises(MediaError, match="symbolic links form a loop"):
            check_file(loop, MediaPolicy())
        with pytest.raises(MediaError, match="symbolic links form a loop"):
            check_file(MediaPolicy().check_path(str(loop)), MediaPolicy())

    def test_pixels_seconds_and_frames_are_limited(self, checkpoints: Path, media: dict[str, Path]) -> None:
        policy = MediaPolicy(max_pixels=10_000, max_seconds=2, max_frames=3)
        assert "10000" in self.error_reason(checkpoints, policy, {"image": media["photo"]})
        frames = [Image.new("RGB", (64, 64))] * 4
        assert "allows 3" in self.error_reason(checkpoints, policy, {"video": frames})
        policy = MediaPolicy(max_seconds=2)
        assert "lasts 6 seconds" in self.error_reason(checkpoints, policy, {"video": media["clip"]})
        assert self.error_reason(checkpoints, policy, {"video": f"{media['clip']}#t=1,3"}) == ""


def test_equal_images_of_every_type_have_equal_vectors(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    data = media["odd"].read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    image = Image.open(media["odd"])
    values: list[Any] = [str(media["odd"]), media["odd"], media["odd"].as_uri(), uri, data, BytesIO(data), image]
    values.append(np.asarray(image))
    vectors = golden_embedder.embed([{"image": value} for value in values] + [media["odd"], image, data])
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], len(vectors), axis=0), atol=2e-6)


def test_error_of_a_query_says_so(golden_reranker: Reranker) -> None:
    with pytest.raises(InputError, match="the query"):
        golden_reranker.score({"image": "/nowhere/at/all.png"}, ["a"])


def test_failed_documents_are_ranked_last(golden_reranker: Reranker, media: dict[str, Path]) -> None:
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


def test_embedder_is_thread_safe(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    inputs: list[Any] = ["one", {"image": media["odd"]}, "a longer text than the others", {"image": media["tiny"]}]
    expected = golden_embedder.embed(inputs)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: golden_embedder.embed(inputs), range(8)))
    assert len(results) == 8
    for vectors in results:
        np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_slow_headers_end_at_the_timeout(checkpoints: Path) -> None:
    """The deadline is that of the whole fetch, not of each read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def send_slowly() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 200:
                        connection.send(bytes([byte]))
                        time.sleep(0.05)
                except OSError:
                    pass

        threading.Thread(target=send_slowly, daemon=True).start()
        policy = MediaPolicy(private_hosts=True, timeout=0.5)
        embedder = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        (error,) = embedder.embed([{"image": url}], on_error="collect").errors
    assert "within 0.5 seconds" in error.reason


@pytest.mark.parametrize(
    "address", ["192.0.0.192", "64:ff9b:1::1", "fec0::1", "::7f00:1", "::ffff:10.0.0.1", "224.0.0.1"]
)
def test_address_is_not_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("1.1.1.1")
    assert is_public("2606:4700:4700::1111")


class BytesPath:
    """A path-like object whose path is bytes."""

    def __fspath__(self) -> bytes:
        return b"x.png"


@pytest.mark.parametrize(
    "value", [{"video": ["http://[bad"]}, {"image": "file://[bad"}, BytesPath(), {"image": "~backup.png"}]
)
def test_malformed_references_are_item_errors(value: Any, golden_embedder: Embedder) -> None:
    batch = golden_embedder.embed(["before", value, "after"], on_error="collect")
    assert batch.ok.tolist() == [True, False, True]


def test_single_input_counts_as_a_list_of_one(golden_embedder: Embedder, media: dict[str, Path]) -> None:
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


def test_images_are_copied_when_they_are_passed(
    golden_embedder: Embedder, golden_reranker: Reranker, media: dict[str, Path]
) -> None:
    """One object that Pillow has not decoded yet, in many prompts; and a buffer that the caller writes into again."""
    lazy = Image.open(media["photo-jpeg"])
    texts = [f"document number {number} " * (1 + number % 9) for number in range(40)]
    expected = golden_reranker.score({"image": media["photo-jpeg"]}, texts)
    np.testing.assert_allclose(golden_reranker.score({"image": lazy}, texts), expected, atol=1e-5)
    buffer = np.zeros((64, 64), dtype=np.uint8)

    def reused_buffer() -> Any:
        for value in (0, 90, 250):
            buffer[:] = value
            yield {"image": buffer}

    vectors = golden_embedder.embed(reused_buffer())
    assert float(vectors[0] @ vectors[1]) < 0.9999
    assert float(vectors[0] @ vectors[2]) < 0.9999


def test_exif_rotates_images_of_every_type(checkpoints: Path, media: dict[str, Path]) -> None:
    image = Image.open(media["odd"])
    exif = image.getexif()
    exif[0x0112] = 6
    encoded = BytesIO()
    image.save(encoded, "PNG", exif=exif)
    embedder = Embedder(checkpoints / "embedding", device="cpu", exif=True)
    rotated = image.transpose(Image.Transpose.ROTATE_270)
    from_bytes, from_image, expected = embedder.embed([encoded.getvalue(), Image.open(encoded), rotated])
    np.testing.assert_allclose(from_bytes, expected, atol=2e-6)
    np.testing.assert_allclose(from_image, expected, atol=2e-6)


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


def test_many_texts_equal_their_concatenation(golden_embedder: Embedder) -> None:
    """Texts of a prompt are tokenized together, in time linear in their number."""
    texts = ["word "] * 5000
    batch = golden_embedder.embed([{"text": texts}], on_error="collect")
    assert batch.ok.all()
    np.testing.assert_allclose(
        batch.values, golden_embedder.embed("".join(texts), on_error="collect").values, atol=2e-6
    )


def test_negative_top_n_is_refused(golden_reranker: Reranker) -> None:
    with pytest.raises(ValueError, match="top_n is -1"):
        golden_reranker.rank("a", ["b"], top_n=-1)
    assert golden_reranker.rank("a", ["b"], top_n=0) == []


def test_unknown_device_is_refused(checkpoints: Path) -> None:
    with pytest.raises(ValueError, match="the device 'nonsense' cannot be used here"):
        Embedder(checkpoints / "embedding", device="nonsense")
