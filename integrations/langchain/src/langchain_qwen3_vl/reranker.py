"""A compressor that looks at the pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.utils import from_env
from pydantic import AliasChoices, Field, PrivateAttr

from langchain_qwen3_vl.content import Content, as_input, as_list, input_or_error
from langchain_qwen3_vl.settings import LangChainModelSettings
from qwen3vl.adapters.registry import MODELS
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import BatchError, ItemError

if TYPE_CHECKING:
    from qwen3vl import Reranker

log = logging.getLogger(__name__)
RERANK_METADATA_KEYS = ("relevance_score", "rerank_error")
"""Metadata that a judgement leaves; those of an earlier one go."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A document's place among those that were given, and its score or what kept it from one."""

    index: int
    score: float | None
    error: ItemError | None = None


class Qwen3VLReranker(LangChainModelSettings, BaseDocumentCompressor):
    """Qwen3-VL-Reranker: judges documents by a query, their pictures, pages and clips included.

    The query is a str, or a mapping with any of text, image and video, a message or a list of content blocks.
    Documents come back best first, as copies with `relevance_score` (0 to 1) in their metadata.

    The model loads on first use, once per process for all objects of equal settings.  One object may be used by
    many threads and event loops at once.
    """

    model: str = Field(
        default_factory=from_env("QWEN3VL_RERANKER_MODEL", default="Qwen/Qwen3-VL-Reranker-2B"),
        validation_alias=AliasChoices("model", "model_name"),
    )
    """A hub id, a local folder, or "tiny"; by default what the environment's QWEN3VL_RERANKER_MODEL says."""
    instruction: str | None = None
    """What counts as an answer; None is the model's default."""
    top_n: int | None = Field(default=3, ge=0)
    """How many documents are kept; None keeps all."""
    score_threshold: float | None = None
    """Documents that score less are dropped."""
    on_error: Literal["keep", "raise"] = "keep"
    """A document that cannot be read, such as one whose picture is gone: kept behind all others, with the reason in its
    metadata under `rerank_error`; or `qwen3vl.BatchError`."""

    _held: Any = PrivateAttr(default=None)

    @property
    def reranker(self) -> Reranker:
        """The core's object, for `qwen3vl.Retriever`; loads the model."""
        self._held = found = MODELS.reranker(**self.engine_arguments(self.model, self.instruction))
        return found

    def rerank(
        self, query: Content, documents: Sequence[Content], *, top_n: int | None = None, instruction: str | None = None
    ) -> list[dict[str, Any]]:
        """`{"index", "relevance_score"}` of documents or inputs, best first, equal scores in their order.

        top_n, instruction: those of the object where they are None.

        One that cannot be read has `{"index", "relevance_score": None, "rerank_error"}`, behind all others.
        """
        found = self._judge(query, documents, self.top_n if top_n is None else top_n, instruction)
        return [{"index": each.index, **_told(each), "relevance_score": each.score} for each in found]

    async def arerank(
        self, query: Content, documents: Sequence[Content], *, top_n: int | None = None, instruction: str | None = None
    ) -> list[dict[str, Any]]:
        """`rerank` without blocking the event loop."""
        return await run_in_executor(self.rerank, query, documents, top_n=top_n, instruction=instruction)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: Content,
        callbacks: Callbacks | None = None,  # noqa: ARG002 (LangChain's name; there is nothing below to report)
    ) -> list[Document]:
        """The best documents, best first, as copies with `relevance_score` in their metadata."""
        kept = []
        for each in self._judge(query, documents, self.top_n, None):
            document = documents[each.index]
            before = {key: value for key, value in document.metadata.items() if key not in RERANK_METADATA_KEYS}
            kept.append(document.model_copy(update={"metadata": {**before, **_told(each)}}))
        return kept

    async def acompress_documents(
        self, documents: Sequence[Document], query: Content, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents` without blocking the event loop."""
        return await run_in_executor(self.compress_documents, documents, query, callbacks)

    def _judge(
        self, query: Content, documents: Sequence[Content], top_n: int | None, instruction: str | None
    ) -> list[Judged]:
        if top_n is not None and top_n < 0:
            raise ValueError(f"top_n is {top_n}; it may be None, or 0 or more")
        documents = as_list(documents)
        if not documents or top_n == 0:
            return []
        judged = self._score(as_input(query, self.media_keys), documents, instruction)
        errors = [each.error for each in judged if each.error is not None]
        if errors and self.on_error == "raise":
            raise BatchError(errors, [each.score for each in judged])
        for error in errors:
            log.warning("not reranked: %s", error)
        if self.score_threshold is not None:
            least = self.score_threshold
            judged = [each for each in judged if each.score is None or each.score >= least]
        judged.sort(key=lambda each: (each.score is None, -(each.score or 0.0)))
        return judged[:top_n]

    def _score(self, query: Any, documents: Sequence[Content], instruction: str | None) -> list[Judged]:
        inputs = [input_or_error(document, self.media_keys) for document in documents]
        batch = self.reranker.score(
            query, inputs, instruction=instruction, progress=self.show_progress, on_error="collect"
        )
        failed = {error.index: error for error in batch.errors}
        return [
            Judged(index, None if index in failed else float(score), failed.get(index))
            for index, score in enumerate(batch.values)
        ]


def _told(judged: Judged) -> dict[str, Any]:
    """What a document's metadata say of its judgement."""
    return {"relevance_score": judged.score} if judged.error is None else {"rerank_error": judged.error.reason}
