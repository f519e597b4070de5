"""The settings that `Embedder` and `Reranker` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.processing.geometry import Limits

TINY_MAX_PIXELS = 96 * 96
"""The tiny models were trained on images of at most this many pixels; larger ones are shrunk to it by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Keyword arguments that `Embedder` and `Reranker` have in common: model revision, device, limits and policy.

    Attributes:
        revision: Branch, tag or (best) commit of the model's repository on the hub.
        device: `"auto"` (the first CUDA device, else Apple's GPU, else the CPU), `"cpu"`, `"cuda"`, `"cuda:1"` or
            `"mps"`. Several devices share the work: `"cuda:0,cuda:1"` or `"cuda:all"`.
        dtype: `"auto"` (bfloat16 on CUDA, else float32), `"float32"`, `"bfloat16"` or `"float16"`; `"int8"` or
            `"fp8"` store weights in 8 bits, which needs less memory and loses some exactness.
        max_length: Maximum number of tokens of a prompt. None means the official script's limit for the model.
        min_pixels: Minimum number of pixels of an image; smaller ones are enlarged.
        max_pixels: Maximum number of pixels of an image; larger ones are shrunk. None means the model's default.
        total_pixels: Maximum number of pixels of all frames of a video together.
        fps: Frames per second that are sampled from a video file.
        max_frames: Maximum number of frames that are sampled from a video.
        policy: Which files and addresses media references may reach, and how large media may be.
        exif: Whether photos are rotated by their EXIF orientation. The official implementation does not.
        batch_tokens: Maximum number of tokens in one forward pass. None chooses by the free memory on CUDA, and is 4096
            elsewhere.
        threads: Number of threads that read and decode media. None chooses by the number of cores.
        vision_cache: Maximum size in bytes of the cache of encoded images and videos. None is an eighth of the free
            memory on CUDA, at most 1 GiB, and 256 MiB elsewhere; 0 disables the cache.
        compiled: Whether `torch.compile` fuses elementwise operations. The first calls take seconds longer, and a
            C compiler (for the CPU also C++) must be installed.
        cuda_graphs: Whether batches of few and short texts are run as CUDA graphs, which is meant to make queries
            faster. The first text of each of four lengths takes longer. Without CUDA it changes nothing. It was never
            run on a GPU; see docs/performance.md.
        check_model: Whether to refuse a model whose files say that it is of the other kind: a reranker as `Embedder`,
            or an embedding model as `Reranker`. If False, it is loaded, with a warning in the log.
    """

    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_length: int | None = None
    min_pixels: int = Limits.min_pixels
    max_pixels: int | None = None
    total_pixels: int = Limits.total_pixels
    fps: float = Limits.fps
    max_frames: int = Limits.max_frames
    policy: MediaPolicy = DEFAULT_POLICY
    exif: bool = False
    batch_tokens: int | None = None
    threads: int | None = None
    vision_cache: int | None = None
    compiled: bool = False
    cuda_graphs: bool = False
    check_model: bool = True

    def limits(self, *, max_length: int, max_pixels: int) -> Limits:
        """Return the limits of prompts and media, with the model's defaults where a setting is None.

        Args:
            max_length: The model's default of `max_length`, in tokens.
            max_pixels: The model's default of `max_pixels`.

        Returns:
            The limits, checked.

        Raises:
            ValueError: The settings contradict each other, such as `min_pixels` above `max_pixels`.
        """
        return Limits(
            max_length=max_length if self.max_length is None else self.max_length,
            min_pixels=self.min_pixels,
            max_pixels=max_pixels if self.max_pixels is None else self.max_pixels,
            total_pixels=self.total_pixels,
            fps=self.fps,
            max_frames=self.max_frames,
        )


class EngineArguments(TypedDict, total=False):
    """The fields of `EngineSettings` as typed keyword arguments; see there."""

    revision: str | None
    device: str
    dtype: str
    max_length: int | None
    min_pixels: int
    max_pixels: int | None
    total_pixels: int
    fps: float
    max_frames: int
    policy: MediaPolicy
    exif: bool
    batch_tokens: int | None
    threads: int | None
    vision_cache: int | None
    compiled: bool
    cuda_graphs: bool
    check_model: bool


def default_max_pixels(model: str | Path) -> int:
    """Return the maximum number of pixels of an image, where the user sets none.

    Args:
        model: A folder, a hub id, or `"tiny"`.

    Returns:
        The limit of the official scripts; for the tiny models `TINY_MAX_PIXELS`.
    """
    return TINY_MAX_PIXELS if str(model) == "tiny" else Limits.max_pixels
