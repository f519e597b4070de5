"""The settings that `Embedder` and `Reranker` share: of an engine in this process, and of a client of servers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.processing.geometry import Limits

ModelName = str | Path | Sequence[str]
"""A hub id, a folder, `"tiny"`, the URL of a server, or URLs of several."""
VLLM_PREFIX = "vllm+"
"""What stands before the URL of a server that is vLLM's: `vllm+http://…`."""
API_KEY_VARIABLE = "QWEN3VL_API_KEY"
"""Environment variable with the key for servers; `qwen3vl serve` reads its keys from there as well."""
SERVER_SETTINGS = ("max_length", "min_pixels", "max_pixels", "total_pixels", "fps", "max_frames", "exif")
"""Fields of `EngineSettings` that decide vectors: a client's have to be those of the server."""
_KEY = re.compile(r"[!-~]+")
TINY_MAX_PIXELS = 96 * 96
"""The tiny models were trained on images of at most this many pixels; larger ones are shrunk to it by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Keyword arguments that `Embedder` and `Reranker` have in common: model revision, device, limits and policy.

    Attributes:
        revision: Branch, tag or (best) commit of the model's repository on the hub.
        adapter: A LoRA adapter that is merged into the model: a folder as peft saves it, or a hub id, perhaps with a
            branch, tag or commit (`"owner/name@commit"`). With the URL of a server, the name of one that it serves.
        device: `"auto"` (the first CUDA device, else Apple's GPU, else the CPU), `"cpu"`, `"cuda"`, `"cuda:1"` or
            `"mps"`. Several devices share the work: `"cuda:0,cuda:1"` or `"cuda:all"`.
        dtype: `"auto"` (bfloat16 on GPUs of NVIDIA from Ampere on and of AMD, else float32), `"float32"`, `"bfloat16"`
            or `"float16"`; `"int8"` or `"fp8"` store weights in 8 bits, which needs less memory and loses some
            exactness.
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

    Raises:
        ValueError: `batch_tokens` or `threads` is less than 1.
    """

    revision: str | None = None
    adapter: str | Path | None = None
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

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1, or None")

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
    adapter: str | Path | None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Keyword arguments of an `Embedder` or `Reranker` whose model is the URL of a server.

    Attributes:
        api_key: Key that the server asks for. None is the first one in the environment variable QWEN3VL_API_KEY.
        timeout_s: Maximum duration of a request in seconds, its repetitions included. A call makes a request for each
            64 items, or 16 MiB.
        max_retries: How often a request is repeated that found no server, or one that answered with status 502, 503 or
            504, after pauses that grow from a quarter of a second to eight seconds. A server that is busy (status 429)
            is asked again until `timeout_s`.
        policy: Which files and addresses media references may reach. What may be decoded is decided by the server,
            unless it is vLLM: media are then decoded here.
        tokenizer: For vLLM only: a folder with the `tokenizer.json` of the model that it serves, or the hub id to
            download it from. None is the name under which vLLM has loaded the model.

    Raises:
        ValueError: A setting is out of range.
    """

    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 600.0
    max_retries: int = 5
    policy: MediaPolicy = DEFAULT_POLICY
    tokenizer: str | Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < math.inf:
            raise ValueError(f"timeout_s is {self.timeout_s}; it must be more than 0, and finite")
        if self.max_retries < 0:
            raise ValueError(f"max_retries is {self.max_retries}; it must be 0 or more")
        if self.api_key is None:
            object.__setattr__(self, "api_key", next(iter(os.environ.get(API_KEY_VARIABLE, "").split()), None))
        if self.api_key and not _KEY.fullmatch(self.api_key):  # the message does not show it
            raise ValueError(
                "api_key has spaces, line breaks or characters beyond ASCII, which cannot be sent; pass the key alone, "
                "as with api_key=text.strip()"
            )


class BackendArguments(EngineArguments, total=False):
    """The fields of `EngineSettings` and `ClientSettings` as typed keyword arguments; see there."""

    api_key: str | None
    timeout_s: float
    max_retries: int
    tokenizer: str | Path | None


def server_urls(model: ModelName) -> tuple[str, ...]:
    """Return the servers that a model's name stands for.

    Args:
        model: A model's name. Several URLs are a sequence, or a str with commas.

    Returns:
        The URLs, without a slash at their end; none if the model is to run in this process. Those of vLLM's servers
        keep `VLLM_PREFIX`.

    Raises:
        ValueError: Only some of several names are URLs, or of vLLM's servers, or a URL has a user, a query or a
            fragment.

    Example:
        ```python
        assert server_urls("http://one:8000,http://two:8000") == ("http://one:8000", "http://two:8000")
        assert server_urls("tiny") == ()
        ```
    """
    if isinstance(model, Path):
        return ()
    names = [name.strip() for name in model.split(",")] if isinstance(model, str) else list(model)
    if not any(map(_is_url, names)):
        if not isinstance(model, str):
            raise ValueError(f"{model!r} is no model: several names are the URLs of servers, http://… or https://…")
        return ()
    for name in names:
        parts = urlsplit(_without_prefix(name))
        if not _is_url(name) or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(
                f"{name.rpartition('@')[2]!r} is no URL of a server; write http://HOST:PORT, with a path if there is "
                "one, and nothing else; pass a key as api_key"
            )
        _ = parts.port  # raises a ValueError that names it, if it is no port
    urls = tuple(dict.fromkeys(name.rstrip("/") for name in names))
    if vllm_urls(urls) and len(vllm_urls(urls)) < len(urls):
        raise ValueError(f"{', '.join(urls)}: some are vLLM's servers, and others are not; pass those of one kind")
    return urls


def vllm_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses of vLLM's servers.

    Args:
        urls: What `server_urls` returned.

    Returns:
        Those with `VLLM_PREFIX`, without it.
    """
    return tuple(_without_prefix(url) for url in urls if url.lower().startswith(VLLM_PREFIX))


def client_settings(urls: Sequence[str], arguments: Mapping[str, Any]) -> ClientSettings:
    """Return the settings of a server's client.

    Args:
        urls: The servers, for the error message.
        arguments: `BackendArguments`.

    Returns:
        The settings, without `SERVER_SETTINGS`, which are checked where the server's are known.

    Raises:
        ValueError: A setting concerns only models in this process, or is out of range.
    """
    own = {name: arguments[name] for name in (each.name for each in fields(ClientSettings)) if name in arguments}
    others = arguments.keys() - own.keys() - set(SERVER_SETTINGS)
    if vllm_urls(urls):
        others -= {"revision", "check_model"}
    elif own.get("tokenizer") is None:
        others -= {"adapter"}
    else:
        raise ValueError(f"tokenizer is for vLLM's servers ({VLLM_PREFIX}http://…); leave it out for {', '.join(urls)}")
    defaults = {each.name: each.default for each in fields(EngineSettings)}
    if unknown := sorted(others - defaults.keys()):
        raise TypeError(f"unknown settings: {', '.join(unknown)}")
    if local := sorted(name for name in others if arguments[name] != defaults[name]):
        raise ValueError(
            f"{', '.join(local)}: for a model that runs in this process, and {', '.join(urls)} has its own; leave it "
            "out, or start the server with it"
        )
    return ClientSettings(**own)


def engine_settings(model: object, arguments: Mapping[str, Any]) -> EngineSettings:
    """Return the settings of an engine in this process.

    Args:
        model: The model, for the error message.
        arguments: `BackendArguments`.

    Returns:
        The settings.

    Raises:
        ValueError: A setting concerns only servers.
    """
    if for_servers := sorted(arguments.keys() & {"api_key", "timeout_s", "max_retries", "tokenizer"}):
        raise ValueError(f"{', '.join(for_servers)}: for a server, and {model} runs in this process; leave it out")
    return EngineSettings(**arguments)


def _is_url(name: str) -> bool:
    return _without_prefix(name).lower().startswith(("http://", "https://"))


def _without_prefix(name: str) -> str:
    return name[len(VLLM_PREFIX) :] if name.lower().startswith(VLLM_PREFIX) else name


def default_max_pixels(model: str | Path) -> int:
    """Return the maximum number of pixels of an image, where the user sets none.

    Args:
        model: A folder, a hub id, or `"tiny"`.

    Returns:
        The limit of the official scripts; for the tiny models `TINY_MAX_PIXELS`.
    """
    return TINY_MAX_PIXELS if str(model) == "tiny" else Limits.max_pixels
