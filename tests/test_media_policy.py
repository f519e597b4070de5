"""A media policy is enforced for files, URLs, redirects and sizes, before anything is decoded."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen3vl import Embedder, InputError, MediaError, MediaPolicy, PolicyError
from qwen3vl.inputs import as_item
from qwen3vl.media import DEFAULT_POLICY
from qwen3vl.media.addresses import is_public
from qwen3vl.media.fetch import fetch
from qwen3vl.media.source import check_file
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import UnsizedVideo, read_headers
from tests.support.http_server import Server


def error_reason(checkpoints: Path, policy: MediaPolicy, value: Any) -> str:
    """Return the reason for which one input fails; empty if it does not."""
    embedder = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
    batch = embedder.embed([value], on_error="collect")
    return batch.errors[0].reason if batch.errors else ""


def test_addresses_that_are_not_public_are_not_fetched(
    checkpoints: Path, server: Server, media: dict[str, Path]
) -> None:
    server.pages["/a.png"] = (200, {}, media["odd"].read_bytes())
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433"):
        reason = error_reason(checkpoints, MediaPolicy(), {"image": server.url("/a.png", host)})
        assert "not a public address" in reason or "cannot be found" in reason
    for host in ("10.0.0.1", "169.254.169.254", "192.168.1.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        reason = error_reason(checkpoints, MediaPolicy(), {"image": f"http://{host}/a.png"})
        assert "not a public address" in reason
    assert server.requested_paths == []


def test_private_hosts_allows_the_loopback_address(checkpoints: Path, server: Server, media: dict[str, Path]) -> None:
    server.pages["/a.png"] = (200, {}, media["odd"].read_bytes())
    policy = MediaPolicy(private_hosts=True)
    embedder = Embedder(checkpoints / "embedding", device="cpu", policy=policy)
    fetched, read = embedder.embed([{"image": server.url("/a.png")}, {"image": media["odd"]}])
    np.testing.assert_allclose(fetched, read, atol=2e-6)


def test_target_of_a_redirect_is_checked_like_the_url(checkpoints: Path, server: Server) -> None:
    server.pages["/there"] = (302, {"location": "http://169.254.169.254/secret"}, b"")
    policy = MediaPolicy(private_hosts=True, hosts=("127.0.0.1",))
    reason = error_reason(checkpoints, policy, {"image": server.url("/there")})
    assert "169.254.169.254 is not among those" in reason
    server.pages["/file"] = (302, {"location": "file:///etc/passwd"}, b"")
    reason = error_reason(checkpoints, policy, {"image": server.url("/file")})
    assert "only http(s) is fetched" in reason


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[::1]"])
def test_redirect_to_a_private_address_is_refused(server: Server, host: str) -> None:
    """Tests have no public host to redirect from, so the loopback address counts as public here."""
    server.pages["/there"] = (302, {"location": f"http://{host}/secret"}, b"")

    def allow_address(address: str) -> bool:
        return address == "127.0.0.1" or is_public(address)

    with pytest.raises(PolicyError, match="which is not a public address"):
        fetch(server.url("/there"), MediaPolicy(), allow_address=allow_address)
    assert server.requested_paths == ["/there"]


def test_number_of_redirects_is_limited(checkpoints: Path, server: Server) -> None:
    server.pages["/round"] = (302, {"location": "/round"}, b"")
    reason = error_reason(checkpoints, MediaPolicy(private_hosts=True), {"image": server.url("/round")})
    assert "more than 3 redirects" in reason
    assert len(server.requested_paths) == 4


def test_error_status_is_named(checkpoints: Path, server: Server) -> None:
    reason = error_reason(checkpoints, MediaPolicy(private_hosts=True), {"image": server.url("/nothing.png")})
    assert "the server answers 404" in reason


def test_slow_body_ends_at_the_timeout(checkpoints: Path, server: Server) -> None:
    server.pages["/slow"] = (200, {}, b"x" * 100)
    server.byte_delays["/slow"] = 0.2
    policy = MediaPolicy(private_hosts=True, timeout=0.5)
    assert "within 0.5 seconds" in error_reason(checkpoints, policy, {"image": server.url("/slow")})


def test_bytes_are_limited_with_and_without_content_length(
    checkpoints: Path, server: Server, media: dict[str, Path]
) -> None:
    policy = MediaPolicy(private_hosts=True, max_bytes=1000)
    body = media["photo"].read_bytes()
    server.pages["/with-length"] = (200, {"content-length": str(len(body))}, body)
    server.pages["/without-length"] = (200, {}, body)
    for value in (server.url("/with-length"), server.url("/without-length"), body, str(media["photo"])):
        assert "the media policy allows" in error_reason(checkpoints, policy, {"image": value})


def test_urls_can_be_forbidden(checkpoints: Path) -> None:
    reason = error_reason(checkpoints, MediaPolicy(urls=False), {"image": "https://example.com/a.png"})
    assert "does not allow URLs" in reason


def test_files_outside_the_folders_are_not_opened(checkpoints: Path, media: dict[str, Path], tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(media["odd"])
    policy = MediaPolicy(folders=(tmp_path,))
    for value in (media["odd"], link, f"{tmp_path}/../{media['odd'].parent.name}/odd.png", media["odd"].as_uri()):
        assert "outside the folders" in error_reason(checkpoints, policy, {"image": str(value)})
    assert "outside the folders" in error_reason(checkpoints, policy, {"video": str(media["clip"])})
    (tmp_path / "own.png").write_bytes(media["odd"].read_bytes())
    assert error_reason(checkpoints, policy, {"image": tmp_path / "own.png"}) == ""


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("~nosuchuser", "no such user"),
        ("~nosuchuser/x", "no such user"),
        ("", "no path"),
        ("a\0b", "no path"),
        (b"x", "no path"),
    ],
)
def test_folder_that_can_only_be_a_mistake_is_an_error(folder: Any, reason: str) -> None:
    """An empty one would be the current folder."""
    for folders in ((folder,), ["/srv", folder]):
        with pytest.raises(ValueError, match=rf"MediaPolicy\.folders has .*{reason}"):
            MediaPolicy(folders=folders)


def test_allowed_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    policy = MediaPolicy(folders=(tmp_path / "gone", tmp_path / "here"))
    (tmp_path / "here").mkdir()
    with pytest.raises(PolicyError, match=rf"allows \({tmp_path}/gone, which is no folder, {tmp_path}/here\)"):
        policy.check_path(str(tmp_path / "photo.png"))


def test_loop_of_links_is_named(tmp_path: Path) -> None:
    """Python before 3.13 finds it when the path is resolved, later versions when the file is examined."""
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    with pytest.raises(MediaError, match="symbolic links form a loop"):
        check_file(loop, MediaPolicy())
    with pytest.raises(MediaError, match="symbolic links form a loop"):
        check_file(MediaPolicy().check_path(str(loop)), MediaPolicy())


def test_pixels_seconds_and_frames_are_limited(checkpoints: Path, media: dict[str, Path]) -> None:
    policy = MediaPolicy(max_pixels=10_000, max_seconds=2, max_frames=3)
    assert "10000" in error_reason(checkpoints, policy, {"image": media["photo"]})
    frames = [Image.new("RGB", (64, 64))] * 4
    assert "allows 3" in error_reason(checkpoints, policy, {"video": frames})
    policy = MediaPolicy(max_seconds=2)
    assert "lasts 6 seconds" in error_reason(checkpoints, policy, {"video": media["clip"]})
    assert error_reason(checkpoints, policy, {"video": f"{media['clip']}#t=1,3"}) == ""


def test_frames_that_an_input_asks_for_are_limited(media: dict[str, Path]) -> None:
    def read(limits: Limits, max_frames: int | None) -> int:
        item = as_item({"video": media["clip"], "fps": 1000, "max_frames": max_frames})
        (video,) = read_headers(item, limits, MediaPolicy(max_frames=5), exif=False).videos
        assert isinstance(video, UnsizedVideo)
        return video.num_pairs

    assert read(Limits(max_frames=4), 4) == 2
    assert read(Limits(max_frames=8), None) == 4  # the engine's own setting is allowed
    assert read(Limits(max_frames=8), 8) == 4
    with pytest.raises(PolicyError, match=r"the 5 frames that the media policy allows \(MediaPolicy.max_frames\)"):
        read(Limits(max_frames=4), 6)
    with pytest.raises(PolicyError, match="the 8 frames that the media policy allows"):
        read(Limits(max_frames=8), 10**9)


@pytest.mark.parametrize(
    ("value", "num_pairs"),
    [
        ({"image": ["missing.png"] * 100_000}, 100_000),
        ({"video": ["missing.mp4"] * 30}, 30),
        ({"video": [["missing.png"] * 26, ["missing.png"] * 20], "max_frames": 25}, 23),
        ({"video": [["missing.png"] * 1000], "image": "missing.png", "max_frames": 63}, 33),
    ],
)
def test_more_media_than_can_fit_are_not_opened(value: Any, num_pairs: int) -> None:
    limits = Limits(max_length=64, max_frames=64)
    with pytest.raises(InputError, match=f"its {num_pairs} images or pairs of frames take .* send fewer images"):
        read_headers(as_item(value), limits, DEFAULT_POLICY, exif=False)


def test_playlist_is_not_opened_as_a_video(golden_embedder: Embedder, tmp_path: Path) -> None:
    """FFmpeg would open the files that a playlist names."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\nfile://{secret}\n")
    (error,) = golden_embedder.embed([{"video": playlist}], on_error="collect").errors
    assert "not a video that can be read" in error.reason


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
