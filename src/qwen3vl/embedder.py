"""`Embedder`: texts, images, videos and mixtures of them to vectors."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from qwen3vl.engine import Engine, EngineOwner, UnparsedRequest
from qwen3vl.errors import ItemError
from qwen3vl.inputs import Input, Item, check_text
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.model.hub import resolve_checkpoint
from qwen3vl.model.kind import check_model_kind
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import (
    EMBED_INSTRUCTION,
    PROMPT_VERSION,
    ControlToken,
    TextPart,
    embed_prompt,
    normalize_instruction,
)
from qwen3vl.recipe import Recipe
from qwen3vl.results import (
    Batch,
    OnError,
    OutputCollector,
    check_on_error,
    count_inputs,
    iterate_inputs,
    raise_errors,
    truncate_vectors,
)
from qwen3vl.settings import EngineArguments, EngineSettings, default_max_pixels

log = logging.getLogger(__name__)


class Embedder(EngineOwner):
    """Embeds texts, images, videos and mixtures of them into one vector space.

    One object may be used by many threads at once. Objects with the same model, device and dtype share its weights.

    Args:
        model: A hub id, a local folder, or `"tiny"` (the small model that comes with this package).
        dimensions: Truncate vectors to this many values (Matryoshka representation), then normalize them. None
            keeps all.
        instruction: Instruction for inputs that have none of their own. A full stop is added if it does not end
            with punctuation, as in the official script.
        **settings: The fields of `EngineSettings`: revision, device, dtype, limits, media policy, caches.

    Raises:
        ModelError: The model cannot be found, downloaded or loaded, or its files say that it is a reranker.
        ValueError: A setting is out of range, or the device cannot be used.

    Example:
        ```python
        with Embedder("tiny") as embedder:
            vectors = embedder.embed(["a red circle", {"image": "photo.jpg", "text": "with its caption"}])
        ```
    """

    def __init__(
        self,
        model: str | Path = "Qwen/Qwen3-VL-Embedding-2B",
        *,
        dimensions: int | None = None,
        instruction: str = EMBED_INSTRUCTION,
        **settings: Unpack[EngineArguments],
    ) -> None:
        engine_settings = EngineSettings(**settings)
        limits = engine_settings.limits(max_length=Limits.max_length, max_pixels=default_max_pixels(model))
        checkpoint = resolve_checkpoint(model, "embedding", engine_settings.revision)
        check_model_kind(checkpoint, "embedding", refuse=engine_settings.check_model)
        self.instruction = normalize_instruction(check_text(instruction, "the instruction")) or EMBED_INSTRUCTION
        self.engine = Engine(checkpoint, engine_settings, limits)
        if not self.engine.tokenizer.suffix:
            log.warning(
                "the tokenizer of %s does not end prompts with a token of its own, as an embedding model's does; "
                "the model may be a reranker or a chat model",
                model,
            )
        hidden_size = self.engine.model.config.text.hidden_size
        if dimensions is not None and not 1 <= dimensions <= hidden_size:
            raise ValueError(f"dimensions is {dimensions}; it must be between 1 and {hidden_size} for this model")
        self.dimension = dimensions or hidden_size

    @property
    def policy(self) -> MediaPolicy:
        """Which files and addresses media references may reach."""
        return self.engine.settings.policy

    @property
    def recipe(self) -> Recipe:
        """Everything that decides this object's vectors."""
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
            exif=self.engine.settings.exif,
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
        """Embed inputs, in their order.

        Args:
            inputs: Inputs, or a single one. An input is a str (always text), a path, bytes, a PIL image, an array,
                or a mapping with any of the keys text, image, video (each one value or a list), instruction, fps
                and max_frames.
            instruction: Instruction for inputs that have none of their own; None is the object's.
            progress: Whether to show a progress bar.
            on_error: `"raise"` raises an exception after all other inputs are done; `"collect"` returns a `Batch`.

        Returns:
            Vectors of length 1, (n, dimension) float32; with `on_error="collect"` a `Batch` of these with errors
            and notices.

        Raises:
            BatchError: Inputs failed and `on_error` is `"raise"`. It has the vectors of the others.
            ValueError: `on_error` has another value.
        """
        check_on_error(on_error)
        outputs = self.engine.run(self._requests(inputs, instruction))
        batch = self._collector(inputs, progress=progress).collect(outputs)
        raise_errors(batch, on_error)
        return batch if on_error == "collect" else batch.values

    @overload
    async def aembed(
        self,
        inputs: Iterable[Input] | Input,
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> NDArray[np.float32]: ...

    @overload
    async def aembed(
        self,
        inputs: Iterable[Input] | Input,
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["collect"],
    ) -> Batch: ...

    async def aembed(
        self,
        inputs: Iterable[Input] | Input,
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> NDArray[np.float32] | Batch:
        """Embed inputs as `embed` does, from an event loop. Waiting occupies no thread.

        Any number of calls may wait at once; their inputs are packed into common batches. Cancelling the awaiting task
        stops its work.

        Args:
            inputs: As for `embed`. Iterables are iterated on the event loop's thread.
            instruction: As for `embed`.
            progress: As for `embed`.
            on_error: As for `embed`.

        Returns:
            As for `embed`.

        Raises:
            BatchError: Inputs failed and `on_error` is `"raise"`. It has the vectors of the others.
            ValueError: `on_error` has another value.

        Example:
            ```python
            import asyncio

            async def main() -> None:
                with Embedder("tiny") as embedder:
                    vectors = await asyncio.gather(*(embedder.aembed(text) for text in ["a red circle", "a blue star"]))

            asyncio.run(main())
            ```
        """
        check_on_error(on_error)
        outputs = self.engine.arun(self._requests(inputs, instruction))
        batch = await self._collector(inputs, progress=progress).acollect(outputs)
        raise_errors(batch, on_error)
        return batch if on_error == "collect" else batch.values

    def stream(
        self, inputs: Iterable[Input], *, instruction: str | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32] | ItemError]]:
        """Embed a stream of inputs of any length in bounded memory.

        Args:
            inputs: Taken as they are needed, some hundreds ahead.
            instruction: Instruction for inputs that have none of their own; None is the object's.

        Yields:
            The input's index, and its vector, (dimension,) float32, or its error: as they are done, in any order.
        """
        for output in self.engine.run(self._requests(inputs, instruction)):
            if output.state is not None:
                yield output.index, self._to_vector(output.state)
            elif output.error is not None:
                yield output.index, output.error

    def _requests(self, inputs: Iterable[Input] | Input, instruction: str | None) -> Iterator[UnparsedRequest]:
        own = check_text(instruction or "", "the instruction")
        default = normalize_instruction(own) or self.instruction
        to_prompt = partial(self._to_prompt, default)
        return (UnparsedRequest(index, value, to_prompt) for index, value in enumerate(iterate_inputs(inputs)))

    def _collector(self, inputs: Iterable[Input] | Input, *, progress: bool) -> OutputCollector:
        return OutputCollector(self._to_vector, (self.dimension,), total=count_inputs(inputs), progress=progress)

    def _to_prompt(self, default_instruction: str, item: Item) -> list[ControlToken | TextPart | UnsizedMedia]:
        instruction = normalize_instruction(item.instruction or "") or default_instruction
        return embed_prompt(self.engine.read_headers(item), instruction)

    def _to_vector(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        return truncate_vectors(state, self.dimension)
