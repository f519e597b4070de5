"""Changes valid files at random: the same seed and index give the same file."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.support.hostile.file import HostileFile
from tests.support.hostile.png import SIGNATURE
from tests.support.hostile.seeds import seeds

NUM_CHANGES = (1, 1, 1, 2, 4)
"""How many changes a file gets; after a single one, decoders often go on."""
LENGTHS = (0, 1, 7, 8, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
"""What lengths and counts are replaced with, beside values near their own."""
_NUMBER = re.compile(rb"\d+")


def mutated(seed: int, index: int) -> HostileFile:
    """Return one of the files of a seed.

    Args:
        seed: Any number.
        index: The file's number.
    """
    random = Random(f"{seed} {index}")
    files = seeds()
    name = random.choice(sorted(files))
    data = files[name]
    for _ in range(random.choice(NUM_CHANGES)):
        data = random.choice(CHANGES)(random, data)
    if random.random() < 0.5:
        data = with_checksums(data)
    suffix = Path(name).suffix
    return HostileFile(f"{index:06d}-{name}", "parser", "either", lambda: data, as_video=suffix == ".mp4")


def flip_bits(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 2, 8, 32)) if data else 0):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_bytes(random: Random, data: bytes) -> bytes:
    start, end = _span(random, data)
    return data[:start] + random.choice((b"\0", b"\xff", b"\x7f", b"\x80", b" ", b"9")) * (end - start) + data[end:]


def truncate(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def remove(random: Random, data: bytes) -> bytes:
    start, end = _span(random, data)
    return data[:start] + data[end:]


def repeat(random: Random, data: bytes) -> bytes:
    start, end = _span(random, data)
    return data[:end] + data[start:end] * random.choice((1, 2, 9)) + data[end:]


def splice(random: Random, data: bytes) -> bytes:
    """The beginning of this file and the end of another."""
    other = seeds()[random.choice(sorted(seeds()))]
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other)) :]


def insert(random: Random, data: bytes) -> bytes:
    """A part of another file within this one."""
    other = seeds()[random.choice(sorted(seeds()))]
    start, end = _span(random, other)
    at = random.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at:]


def change_length(random: Random, data: bytes) -> bytes:
    """Replace a number that could be a length in this file, binary or decimal."""
    if data.startswith(b"%PDF") and (numbers := list(_NUMBER.finditer(data))):
        number = random.choice(numbers)
        value = random.choice((*LENGTHS, -1, int(number[0][:9]) + random.choice((-1, 1))))
        return data[: number.start()] + str(value).encode() + data[number.end() :]
    code = random.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(code)
    places = range(len(data) - size + 1)
    plausible = [at for at in places if 0 < struct.unpack_from(code, data, at)[0] <= len(data)]
    if not plausible:
        return data
    at = random.choice(plausible)
    (value,) = struct.unpack_from(code, data, at)
    value = random.choice((*LENGTHS, value - 1, value + 1, value * 256)) % (1 << 8 * size)
    return data[:at] + struct.pack(code, value) + data[at + size :]


CHANGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    flip_bits, set_bytes, truncate, remove, repeat, splice, insert, change_length, change_length,
)  # fmt: skip


def with_checksums(data: bytes) -> bytes:
    """Correct the checksums of a PNG, so that its decoder sees the changes behind them."""
    if not data.startswith(SIGNATURE):
        return data
    changed = bytearray(data)
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", changed, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(changed)


def _span(random: Random, data: bytes) -> tuple[int, int]:
    """A part of at most some kilobytes, more often a short one."""
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + int(2 ** random.uniform(0, 12)))
