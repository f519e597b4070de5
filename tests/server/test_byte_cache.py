"""The cache of contents that clients have sent, and of thumbnails."""

from __future__ import annotations

from qwen3vl_server.byte_cache import ByteCache


def test_what_was_used_least_recently_is_dropped_first() -> None:
    cache = ByteCache(10)
    for key in "abc":
        cache.put(key, b"1234")
    assert [cache.get(key) for key in "abc"] == [None, b"1234", b"1234"]
    assert cache.get("b") == b"1234"
    cache.put("d", b"123")
    assert [cache.get(key) for key in "bcd"] == [b"1234", None, b"123"]
    assert cache.used_bytes == 7


def test_bytes_are_replaced() -> None:
    cache = ByteCache(10)
    for data in (b"1234", b"12", b"1234567890"):
        cache.put("a", data)
        assert (cache.get("a"), cache.used_bytes) == (data, len(data))


def test_what_alone_exceeds_the_limit_is_not_kept_and_drops_nothing_else() -> None:
    cache = ByteCache(10)
    for key, data in (("a", b"1234"), ("b", b"1234"), ("c", b"0" * 11), ("b", b"0" * 11)):
        cache.put(key, data)
    assert [cache.get(key) for key in "abc"] == [b"1234", None, None]
    assert cache.used_bytes == 4
