"""Inputs to vectors."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from qwen3vl.engine import Engine, EngineOptions, RequestOutput, make_request
from qwen3vl.errors import ItemError
from qwen3vl.inputs import Input, Item
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.model.hub import default_max_pixels, resolve_checkpoint
from qwen3vl.processing.fitting import UnsizedMedia
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.templates import (
    EMBED_INSTRUCTION,
    PROMPT_VERSION,
    ControlToken,
    TextPart,
    embed_prompt,
    normalize_instruction,
)
from qwen3vl.recipe import Recipe
from qwen3vl.results import Batch, OnError, check_on_error, each, gather, settle, size

log = logging.getLogger(__name__)


class Embedder:
    """Turns texts, pictures, clips and mixtures of them into vectors of one space.

    model: a hub id, a local folder, or "tiny".
    revision: of the hub's repository: a branch, a tag or, best, a commit.
    dimensions: cut the vectors to this many values (Matryoshka), then normalise; None keeps all.
    instruction: for inputs that bring none of their own; ended by a full stop if by no punctuation.
    device: "auto", "cpu", "cuda", "cuda:1", "mps"; several, as in "cuda:0,cuda:1" or "cuda:all", share the work.
    dtype: "auto" (bfloat16 on CUDA, else float32), "float32", "bfloat16", "float16"; "int8" or "fp8" for weights of
    eight bits, which take less memory and lose some exactness.
    max_length: tokens of a prompt; min_pixels, max_pixels: of a picture; total_pixels: of all frames of a
    clip; fps, max_frames: how a clip file is sampled.
    policy: what media references may reach; exif: whether a photo is turned as its EXIF tag says (the
    reference does not).
    batch_tokens: tokens in one forward pass, None chooses by the device's memory; threads: for reading and decoding
    media.
    vision_cache: bytes of encoded pictures and clips that are kept for the next call that shows them; None is 1 GiB
    on CUDA and 256 MiB elsewhere, 0 keeps none.
    compiled: let torch.compile fuse elementwise work; its first calls take seconds more, and it needs a compiler
    (C, and C++ on a CPU).

    One object may be used by many threads at once; objects of one model share its weights.
    """

    def __init__(
        self,
        model: str | Path = "Qwen/Qwen3-VL-Embedding-2B",
        *,
        revision: str | None = None,
        dimensions: int | None = None,
        instruction: str = EMBED_INSTRUCTION,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int = Limits.max_length,
        min_pixels: int = Limits.min_pixels,
        max_pixels: int | None = None,
        total_pixels: int = Limits.total_pixels,
        fps: float = Limits.fps,
        max_frames: int = Limits.max_frames,
        policy: MediaPolicy = DEFAULT_POLICY,
        exif: bool = False,
        batch_tokens: int | None = None,
        threads: int | None = None,
        vision_cache: int | None = None,
        compiled: bool = False,
    ) -> None:
        limits = Limits(max_length, min_pixels, max_pixels or default_max_pixels(model), total_pixels, fps, max_frames)
        options = EngineOptions(device, dtype, batch_tokens, threads, exif, vision_cache, compiled)
        self.instruction = normalize_instruction(instruction) or EMBED_INSTRUCTION
        self.engine = Engine(resolve_checkpoint(model, "embedding", revision), limits, policy, options)
        if not self.engine.tokenizer.suffix:
            log.warning(
                "the tokenizer of %s ends prompts with no token of its own, as an embedding model's does: "
                "is it a reranker or a chat model?",
                model,
            )
        width = self.engine.model.config.text.hidden
        if dimensions is not None and not 1 <= dimensions <= width:
            raise ValueError(f"dimensions is {dimensions}; this model's vectors have {width} values")
        self.dimension = dimensions or width

    @property
    def policy(self) -> MediaPolicy:
        """What media references may reach."""
        return self.engine.policy

    @property
    def recipe(self) -> Recipe:
        """What decides the vectors of this object."""
        limits, checkpoint = self.engine.limits, self.engine.checkpoint
        return Recipe(
            model=checkpoint.name,
            revision=checkpoint.revision,
            weights=self.engine.fingerprint,
            prompt_version=PROMPT_VERSION,
            instruction=self.instruction,
            max_length=limits.max_length,
            min_pixels=limits.min_pixels,
            max_pixels=limits.max_pixels,
            total_pixels=limits.total_pixels,
            fps=limits.fps,
            max_frames=limits.max_frames,
            exif=self.engine.options.exif,
            dimensions=self.dimension,
        )

    @overload
    def embed(
        self,
        inputs: Iterable[Input] | Input,
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> NDArray[np.float32]: ...

    @overload
    def embed(
        self,
        inputs: Iterable[Input] | Input,
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["collect"],
    ) -> Batch: ...

    def embed(
        self,
        inputs: Iterable[Input] | Input,
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> NDArray[np.float32] | Batch:
        """Vectors of the inputs: (n, dimension) float32 of length 1, in the order of the inputs.

        An input is a str (always text), a path, bytes, a PIL image, an array, or a mapping with any of
        text, image, video (each one or a list), instruction, fps, max_frames; a single input counts as a
        list of one.  `instruction` serves the inputs that bring none.

        With on_error="raise", `BatchError` is raised when all inputs are done and some have failed; it
        carries the vectors of the others.  With "collect", a `Batch` of vectors, errors and notices comes back.
        """
        check_on_error(on_error)
        outcomes = self._outcomes(inputs, instruction)
        batch = gather(outcomes, self._vector, (self.dimension,), total=size(inputs), progress=progress)
        settle(batch, on_error)
        return batch if on_error == "collect" else batch.values

    def stream(
        self, inputs: Iterable[Input], *, instruction: str | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32] | ItemError]]:
        """(index, vector or error) of each input as it is done, in no promised order.

        Inputs are taken as they are needed, some hundreds ahead, so that any number may flow through.
        """
        for outcome in self._outcomes(inputs, instruction):
            if outcome.state is not None:
                yield outcome.index, self._vector(outcome.state)
            elif outcome.error is not None:
                yield outcome.index, outcome.error

    def _outcomes(self, inputs: Iterable[Input] | Input, instruction: str | None) -> Generator[RequestOutput]:
        default = self.instruction if instruction is None else normalize_instruction(instruction) or self.instruction
        write = partial(self._write, default)
        return self.engine.run(make_request(index, value, write) for index, value in enumerate(each(inputs)))

    def _write(self, default: str, item: Item) -> list[ControlToken | TextPart | UnsizedMedia]:
        return embed_prompt(self.engine.read_headers(item), normalize_instruction(item.instruction or "") or default)

    def _vector(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        cut = state[: self.dimension]
        # The reference divides by max(norm, 1e-12), as torch.nn.functional.normalize does.
        return cut / np.maximum(np.linalg.norm(cut), np.float32(1e-12))  # type: ignore[no-any-return]
