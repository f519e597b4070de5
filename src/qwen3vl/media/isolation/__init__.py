"""Runs the decoding of one image, PDF page or video in a decoder process that can be killed, or in this process.

A media file can make its decoder run for minutes, allocate gigabytes, or crash. There, any of these is an error of that
file alone: a `DecoderProcess` is killed when an item exceeds `MediaPolicy.seconds`, and the operating
system refuses memory above `MediaPolicy.memory`.

The processes are started with `subprocess` rather than `multiprocessing` (or a library on top of it, such as pebble):
`multiprocessing` imports the user's main script again in each process that it spawns, which runs scripts without an
`if __name__ == "__main__"` guard twice, and a fork of a process with threads and CUDA is not safe. What they send back
is not unpickled but read as JSON and pixels, since the sender has read a hostile file.
"""

from qwen3vl.media.isolation.decoding import MAX_PROCESSES, decode, decode_stream

__all__ = ["MAX_PROCESSES", "decode", "decode_stream"]
