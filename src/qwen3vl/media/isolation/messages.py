"""Messages between a process and its decoder processes: JSON, with arrays and bytes in a shared buffer.

Nothing that comes from a decoder process is unpickled: it has read a hostile file.
"""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from qwen3vl.media.isolation.shared_buffer import Data, Location, SharedBuffer

MAX_MESSAGE_BYTES = 64 * 2**20
"""Maximum size of a message's JSON. The longest part that occurs is the text of a page."""
_DTYPES = ("uint8", "int64")
"""Element types of arrays in messages."""
_ARRAY, _BYTES, _PATH = "array", "bytes", "path"


class Channel:
    """One end of the connection between a process and a decoder process.

    Args:
        connection: A connected socket.
        buffer: The buffer that both ends share.
    """

    def __init__(self, connection: Connection, buffer: SharedBuffer) -> None:
        self.connection = connection
        self.buffer = buffer

    def send(self, message: Any) -> None:
        """Send a message. Its arrays and bytes overwrite those of the last message, whichever process sent that.

        Args:
            message: A JSON value that may contain paths, bytes, and NumPy arrays of uint8 or int64 as well. Its dicts
                have none of the keys `array`, `bytes` and `path`; its tuples arrive as lists.

        Raises:
            OSError: The other process has ended, or there is not enough memory for the buffer.
        """
        buffers: list[Data] = []
        plain = _encode(message, buffers)
        locations = self.buffer.write(buffers)
        self.connection.send_bytes(json.dumps([plain, locations]).encode())

    def receive(self, max_bytes: int | None = None) -> Any:
        """Wait for a message.

        Args:
            max_bytes: Maximum size of all its arrays and bytes; None if the other process is trusted.

        Returns:
            The message; arrays and bytes are copies.

        Raises:
            EOFError: The other process has ended.
            OSError: As above, or the message is longer than `MAX_MESSAGE_BYTES` or incomplete.
            ValueError: What arrived is no message, or has more than `max_bytes`.
        """
        data = self.connection.recv_bytes(MAX_MESSAGE_BYTES)
        try:
            plain, locations = json.loads(data)
            if max_bytes is not None and sum(size for _, size in locations) > max_bytes:
                raise ValueError(f"its data have more than {max_bytes} bytes")
            return self._decode(plain, [(offset, size) for offset, size in locations])
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
            raise ValueError(f"it has the wrong structure: {type(error).__name__}: {error}") from error

    def _decode(self, value: Any, locations: list[Location]) -> Any:
        """Return a received JSON value with its arrays, bytes and paths: the inverse of `_encode`."""
        if isinstance(value, list):
            return [self._decode(entry, locations) for entry in value]
        if not isinstance(value, dict):
            return value
        if _ARRAY in value:
            if value["dtype"] not in _DTYPES:
                raise ValueError(f"decoders return no arrays of {value['dtype']}")
            return self.buffer.read(locations[value[_ARRAY]], value["dtype"]).reshape(value["shape"])
        if _BYTES in value:
            return self.buffer.read(locations[value[_BYTES]]).tobytes()
        if _PATH in value:
            return Path(value[_PATH])
        return {key: self._decode(entry, locations) for key, entry in value.items()}

    def close(self) -> None:
        """Close the connection and release the buffer."""
        self.connection.close()
        self.buffer.close()


def _encode(value: Any, buffers: list[Data]) -> Any:
    """Return a value that the JSON encoder accepts, and append its arrays and bytes to `buffers`."""
    if isinstance(value, dict):
        return {key: _encode(entry, buffers) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(entry, buffers) for entry in value]
    if isinstance(value, np.ndarray):
        buffers.append(np.ascontiguousarray(value))
        return {_ARRAY: len(buffers) - 1, "dtype": value.dtype.name, "shape": value.shape}
    if isinstance(value, bytes):
        buffers.append(value)
        return {_BYTES: len(buffers) - 1}
    if isinstance(value, Path):
        return {_PATH: str(value)}
    return value
