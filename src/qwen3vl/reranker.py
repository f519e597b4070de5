"""How well documents answer a query."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from qwen3vl.engine import Engine, EngineOptions, make_request
from qwen3vl.errors import InputError
from qwen3vl.inputs import Input, Item, as_item
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.model.hub import default_max_pixels, resolve_checkpoint
from qwen3vl.model.weights import yes_no_weight
from qwen3vl.processing.fitting import UnsizedMedia
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.templates import RERANK_INSTRUCTION, ControlToken, PromptContent, TextPart, rerank_prompt
from qwen3vl.results import Batch, OnError, check_on_error, each, gather, settle, size

log = logging.getLogger(__name__)


class Reranker:
    """Judges documents by a query; both may be texts, pictures, clips and mixtures of them.

    The arguments are those of `Embedder`; `instruction` says what counts as an answer.
    """

    def __init__(
        self,
        model: str | Path = "Qwen/Qwen3-VL-Reranker-2B",
        *,
        revision: str | None = None,
        instruction: str = RERANK_INSTRUCTION,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int = 10240,
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
        # The reference's limit leaves out the five tokens that end its prompt.
        limits = Limits(
            max_length + 5, min_pixels, max_pixels or default_max_pixels(model), total_pixels, fps, max_frames
        )
        options = EngineOptions(device, dtype, batch_tokens, threads, exif, vision_cache, compiled)
        self.instruction = instruction or RERANK_INSTRUCTION
        self.engine = Engine(resolve_checkpoint(model, "reranker", revision), limits, policy, options)
        tokenizer = self.engine.tokenizer
        if tokenizer.suffix:
            log.warning("the tokenizer of %s ends prompts with a token of its own: is it an embedding model?", model)
        yes, no = tokenizer.control("yes"), tokenizer.control("no")
        row = yes_no_weight(self.engine.checkpoint.folder, self.engine.model, yes, no)
        self._answer: NDArray[np.float32] = row.float().cpu().numpy()

    @overload
    def score(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> NDArray[np.float32]: ...

    @overload
    def score(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["collect"],
    ) -> Batch: ...

    def score(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> NDArray[np.float32] | Batch:
        """The probability of "yes" for each document: (n,) float32 between 0 and 1, in their order.

        Query and documents are inputs as `Embedder.embed` takes them; an instruction in the query wins over
        `instruction`, and one in a document is not used.  A query that cannot be used raises `InputError`; for
        documents see `Embedder.embed`.
        """
        check_on_error(on_error)
        asked = self._query(query)
        told = (asked[0].instruction or instruction or self.instruction).strip() or self.instruction
        write = partial(self._write, asked[1], told)
        requests = (make_request(index, value, write) for index, value in enumerate(each(documents)))
        batch = gather(self.engine.run(requests), self._probability, (), total=size(documents), progress=progress)
        settle(batch, on_error)
        return batch if on_error == "collect" else batch.values

    def rank(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> list[tuple[int, float]]:
        """(index, score) of the documents, best first, equal scores in their order; the first `top_n`.

        With on_error="collect", documents that fail are left out.
        """
        if top_n is not None and top_n < 0:
            raise ValueError(f"top_n is {top_n}; it may be None, or 0 or more")
        batch = self.score(query, documents, instruction=instruction, progress=progress, on_error="collect")
        settle(batch, on_error)
        order = np.argsort(-batch.values, kind="stable")
        ranked = [(int(index), float(batch.values[index])) for index in order if batch.ok[index]]
        return ranked[:top_n]

    def _query(self, query: Input) -> tuple[Item, PromptContent[UnsizedMedia]]:
        """The query with its headers read: once, whatever the number of documents."""
        try:
            item = as_item(query)
            return item, self.engine.read_headers(item)
        except Exception as error:  # a caller's object may raise anything
            name = getattr(error, "source", None) or reprlib.repr(query)
            raise InputError(f"the query ({name}): {error}") from error

    def _write(
        self, asked: PromptContent[UnsizedMedia], instruction: str, item: Item
    ) -> list[ControlToken | TextPart | UnsizedMedia]:
        return rerank_prompt(asked, self.engine.read_headers(item), instruction)

    def _probability(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        logit = np.float32(state @ self._answer)
        return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float32)
