"""`Embedder`: texts, images, videos and mixtures of them to vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, Unpack, cast, overload

import numpy as np
from numpy.typing import NDArray

from qwen3vl.backends import BackendOwner, EmbeddingBackend, tokenizer_required, torch_required
from qwen3vl.errors import ItemError
from qwen3vl.inputs import Input, check_text
from qwen3vl.processing.templates import normalize_instruction
from qwen3vl.results import (
    Batch,
    OnError,
    OutputCollector,
    check_on_error,
    count_inputs,
    iterate_inputs,
    raise_errors,
)
from qwen3vl.settings import BackendArguments, ModelName, client_settings, engine_settings, server_urls, vllm_urls


class Embedder(BackendOwner[EmbeddingBackend]):
    """Embeds texts, images, videos and mixtures of them into one vector space.

    One object may be used by many threads and event loops at once. Objects with the same model, device and dtype share
    its weights.

    Args:
        model: A hub id, a local folder, or `"tiny"` (the small model that comes with this package), which run in this
            process; or the URL of a server that `qwen3vl serve` has started, or URLs of several that serve the same
            model, as a sequence or with commas between them; or such URLs of vLLM's servers, `vllm+http://…`.
        dimensions: Truncate vectors to this many values (Matryoshka representation), then normalize them. None
            keeps all.
        instruction: Instruction for inputs that have none of their own. A full stop is added if it does not end
            with punctuation, as in the official script. None is that of the official script, or of the server.
        **settings: The fields of `EngineSettings` (revision, adapter, device, dtype, limits, media policy, caches), or
            for a server those of `ClientSettings` (api_key, timeout_s, max_retries, media policy). Limits of a server's
            client have to be the server's, unless that is vLLM.

    Raises:
        ModelError: The model or adapter cannot be found, downloaded or loaded, its files say that it is a reranker, or
            a server has no embedding model.
        ServerError: No server can be reached, or one refuses the key.
        RecipeError: Several servers have different models or settings.
        ValueError: A setting is out of range, the device cannot be used, or a server has other limits.

    Example:
        ```python
        with Embedder("tiny") as embedder:
            vectors = embedder.embed(["a red circle", {"image": "photo.jpg", "text": "with its caption"}])
        ```
    """

    def __init__(
        self,
        model: ModelName = "Qwen/Qwen3-VL-Embedding-2B",
        *,
        dimensions: int | None = None,
        instruction: str | None = None,
        **settings: Unpack[BackendArguments],
    ) -> None:
        check_text(instruction or "", "the instruction")
        self.backend = _open_backend(model, dimensions, instruction, settings)

    @property
    def dimension(self) -> int:
        """Number of values of a vector."""
        return self.recipe.dimensions

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
        outputs = self.backend.embed(iterate_inputs(inputs), self._resolve(instruction))
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
        outputs = self.backend.aembed(iterate_inputs(inputs), self._resolve(instruction))
        batch = await self._collector(inputs, progress=progress).acollect(outputs)
        raise_errors(batch, on_error)
        return batch if on_error == "collect" else batch.values

    def stream(
        self, inputs: Iterable[Input], *, instruction: str | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32] | ItemError]]:
        """Embed a stream of inputs of any length in bounded memory.

        Args:
            inputs: Taken as they are needed, some hundreds ahead, on the caller's thread: while the iterable waits for
                its next input, no vector is yielded.
            instruction: Instruction for inputs that have none of their own; None is the object's.

        Yields:
            The input's index, and its vector, (dimension,) float32, or its error: as they are done, in any order.
        """
        with closing(self.backend.embed(iterate_inputs(inputs), self._resolve(instruction))) as outputs:
            for output in outputs:
                if output.value is not None:
                    yield output.index, output.value
                elif output.error is not None:
                    yield output.index, output.error

    def _resolve(self, instruction: str | None) -> str:
        return normalize_instruction(check_text(instruction or "", "the instruction")) or self.instruction

    def _collector(self, inputs: Iterable[Input] | Input, *, progress: bool) -> OutputCollector:
        return OutputCollector((self.dimension,), total=count_inputs(inputs), progress=progress)


def _open_backend(
    model: ModelName, dimensions: int | None, instruction: str | None, settings: BackendArguments
) -> EmbeddingBackend:
    if urls := server_urls(model):
        client = client_settings(urls, settings)
        if addresses := vllm_urls(urls):
            with tokenizer_required():
                from qwen3vl.vllm import VllmEmbedder
            return VllmEmbedder(addresses, client, settings, dimensions=dimensions, instruction=instruction)
        from qwen3vl.client import RemoteEmbedder  # httpx would delay the start of every process

        return RemoteEmbedder(urls, client, settings, dimensions=dimensions, instruction=instruction)
    engine = engine_settings(model, settings)
    with torch_required(model):
        from qwen3vl.local.embedder import LocalEmbedder
    return LocalEmbedder(cast("str | Path", model), engine, dimensions=dimensions, instruction=instruction)
