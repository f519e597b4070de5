"""A document compressor that reranks texts, images, pages and videos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.utils import from_env
from pydantic import AliasChoices, Field

from langchain_qwen3_vl.documents import with_metadata
from langchain_qwen3_vl.inputs import Content, as_list, to_inputs, to_query_input
from langchain_qwen3_vl.settings import LangChainModelArguments, LangChainModelSettings
from qwen3vl.adapters.registry import MODELS
from qwen3vl.errors import BatchError, PolicyError
from qwen3vl.inputs import as_item

if TYPE_CHECKING:
    from qwen3vl import ItemError, Reranker
    from qwen3vl.results import RankedDocument

log = logging.getLogger(__name__)
RERANK_METADATA_KEYS = ("relevance_score", "rerank_error")
"""Metadata keys that reranking sets. Their values from an earlier reranking are removed."""


class RerankerArguments(LangChainModelArguments, total=False):
    """Keyword arguments of `Qwen3VLReranker`, for type checkers."""

    instruction: str | None
    top_n: int | None
    score_threshold: float | None
    on_error: Literal["keep", "raise"]


class Qwen3VLReranker(LangChainModelSettings, BaseDocumentCompressor):
    """Qwen3-VL-Reranker: reranks documents by a query, images, pages and videos included.

    The query is a str, a mapping with any of text, image and video, a message, or a list of content blocks. Documents
    are returned best first, as copies with `relevance_score` (0 to 1) in their metadata.

    The model loads on first use, once per process for all objects with equal settings. One object may be used by
    many threads and event loops at once. The fields of `ModelSettings` (device, dtype, policy, media_keys, ...) are
    accepted too.

    Args:
        **fields: The attributes below, those of `ModelSettings`, and `model_name`.

    Attributes:
        model: A hub id, a local folder, `"tiny"`, or the URL of a server. The default is the environment variable
            QWEN3VL_RERANKER_MODEL, or the 2B model. `model_name` is accepted as another name of this field.
        instruction: What makes a document relevant; None is the model's default.
        top_n: Maximum number of documents to return; None returns all.
        score_threshold: Documents with a lower score, or with none because they cannot be read, are left out; None
            keeps all.
        on_error: What happens to a document that cannot be read, for example because its image was deleted: `"keep"`
            returns it after all others, with a `relevance_score` of None and the reason under `rerank_error` in its
            metadata, unless there is a `score_threshold`; `"raise"` raises `qwen3vl.BatchError`.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_qwen3_vl import Qwen3VLReranker
        from PIL import Image
        from qwen3vl import MediaPolicy

        Image.new("RGB", (96, 96), "red").save("red.png")
        documents = [Document("a blue star"), Document("", metadata={"image": "red.png"}), Document("a red circle")]
        reranker = Qwen3VLReranker(model="tiny", policy=MediaPolicy(folders=(".",)), top_n=2)
        for document in reranker.compress_documents(documents, "a red circle"):
            print(document.page_content, document.metadata["relevance_score"])
        ```
    """

    model: str = Field(
        default_factory=from_env("QWEN3VL_RERANKER_MODEL", default="Qwen/Qwen3-VL-Reranker-2B"),
        validation_alias=AliasChoices("model", "model_name"),
        description='A hub id, a local folder, "tiny", or the URL of a server. "model_name" is another name of it.',
    )
    instruction: str | None = Field(
        default=None, description="What makes a document relevant; None is the model's default."
    )
    top_n: int | None = Field(default=3, ge=0, description="Maximum number of documents to return; None returns all.")
    score_threshold: float | None = Field(
        default=None, description="Documents with a lower score, or with none, are left out; None keeps all."
    )
    on_error: Literal["keep", "raise"] = Field(
        default="keep",
        description='Documents that cannot be read: "keep" returns them last, "raise" raises BatchError.',
    )

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[RerankerArguments]) -> None: ...

    @property
    def reranker(self) -> Reranker:
        """The core's `Reranker`, for `qwen3vl.Retriever`. It is loaded if it is not yet."""
        return self._model.hold(MODELS.reranker(**self.engine_arguments(self.model, self.instruction)))

    def rerank(
        self, query: Content, documents: Sequence[Content], *, top_n: int | None = None, instruction: str | None = None
    ) -> list[dict[str, Any]]:
        """Rank documents or inputs by score, highest first; equal scores keep their order.

        Args:
            query: The query.
            documents: LangChain documents, or anything else that can be embedded.
            top_n: Maximum number of results; None is the field's value.
            instruction: What makes a document relevant; None is the field's value.

        Returns:
            At most `top_n` dicts with `index` (in `documents`) and `relevance_score`, none below `score_threshold`. For
            a document that cannot be read, `relevance_score` is None and `rerank_error` is the reason; these come last,
            and are left out if there is a `score_threshold`.

        Raises:
            InputError: The query cannot be used.
            BatchError: Documents cannot be read and `on_error` is `"raise"`.
            ValueError: `top_n` is negative.
        """
        ranking = self._rank(query, documents, self.top_n if top_n is None else top_n, instruction)
        return _to_results(ranking)

    async def arerank(
        self, query: Content, documents: Sequence[Content], *, top_n: int | None = None, instruction: str | None = None
    ) -> list[dict[str, Any]]:
        """Rank documents as `rerank` does, without blocking the event loop.

        Args:
            query: As for `rerank`.
            documents: As for `rerank`.
            top_n: As for `rerank`.
            instruction: As for `rerank`.

        Returns:
            As `rerank` returns.
        """
        return _to_results(await self._arank(query, documents, self.top_n if top_n is None else top_n, instruction))

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: Content,
        callbacks: Callbacks | None = None,  # noqa: ARG002 (required by LangChain; not used)
    ) -> list[Document]:
        """Return the best documents for a query, best first.

        Args:
            documents: LangChain documents, with media references in their metadata.
            query: The query.
            callbacks: Not used.

        Returns:
            Copies of at most `top_n` documents, with `relevance_score` in their metadata, and with `rerank_error` if
            they cannot be read.

        Raises:
            InputError: The query cannot be used.
            BatchError: Documents cannot be read and `on_error` is `"raise"`.
        """
        return _to_documents(self._rank(query, documents, self.top_n, None), documents)

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: Content,
        callbacks: Callbacks | None = None,  # noqa: ARG002 (as above)
    ) -> list[Document]:
        """Return the best documents as `compress_documents` does, without blocking the event loop.

        Args:
            documents: As for `compress_documents`.
            query: As for `compress_documents`.
            callbacks: Not used.

        Returns:
            As `compress_documents` returns.
        """
        return _to_documents(await self._arank(query, documents, self.top_n, None), documents)

    def _rank(
        self, query: Content, documents: Sequence[Content], top_n: int | None, instruction: str | None
    ) -> list[RankedDocument]:
        inputs = self._inputs(documents, top_n)
        if not inputs:
            return []
        ranking = self.reranker.rank(documents=inputs, **self._rank_arguments(query, instruction))
        return self._select(ranking, inputs, top_n)

    async def _arank(
        self, query: Content, documents: Sequence[Content], top_n: int | None, instruction: str | None
    ) -> list[RankedDocument]:
        inputs = self._inputs(documents, top_n)
        if not inputs:
            return []
        reranker = self._model.hold(await MODELS.areranker(**self.engine_arguments(self.model, self.instruction)))
        ranking = await reranker.arank(documents=inputs, **self._rank_arguments(query, instruction))
        return self._select(ranking, inputs, top_n)

    def _inputs(self, documents: Sequence[Content], top_n: int | None) -> list[Any]:
        """Return what has to be scored for the best `top_n` documents; nothing if none is wanted."""
        if top_n is not None and top_n < 0:
            raise ValueError(f"top_n is {top_n}; it must be None, or 0 or more")
        return [] if top_n == 0 else to_inputs(as_list(documents), self.media_keys)

    def _rank_arguments(self, query: Content, instruction: str | None) -> dict[str, Any]:
        return {
            "query": to_query_input(query, self.media_keys),
            "instruction": instruction,
            "progress": self.show_progress,
            "on_error": "collect",
        }

    def _select(self, ranking: list[RankedDocument], inputs: Sequence[Any], top_n: int | None) -> list[RankedDocument]:
        self._handle_errors(ranking, inputs)
        if self.score_threshold is not None:
            threshold = self.score_threshold
            ranking = [ranked for ranked in ranking if ranked.score is not None and ranked.score >= threshold]
        return ranking[:top_n]

    def _handle_errors(self, ranking: Sequence[RankedDocument], inputs: Sequence[Any]) -> None:
        errors = [ranked.error for ranked in ranking if ranked.error is not None]
        if errors and self.on_error == "raise":
            raise BatchError(errors, [ranked.score for ranked in sorted(ranking, key=lambda ranked: ranked.index)])
        if self.policy.allowed_folders == () and any(_is_refused_file(error, inputs) for error in errors):
            self._once.warning(
                log,
                "no folders",
                "documents refer to files, and the policy of this Qwen3VLReranker allows no file, so that it cannot "
                "score them: name the folders of the files, Qwen3VLReranker(policy=MediaPolicy(folders=[...])). This "
                "warning is given once.",
            )
        for error in errors:
            log.warning("cannot rerank %s", error)


def _is_refused_file(error: ItemError, inputs: Sequence[Any]) -> bool:
    """Return whether a document was not read because the policy does not allow its file."""
    if not isinstance(error.__cause__, PolicyError):
        return False
    item = as_item(inputs[error.index])
    return "path" in (*(image.origin for image in item.images), *(video.origin for video in item.videos))


def _rerank_metadata(ranked: RankedDocument) -> dict[str, Any]:
    if ranked.error is None:
        return {"relevance_score": ranked.score}
    return {"relevance_score": None, "rerank_error": ranked.error.reason}


def _to_results(ranking: Sequence[RankedDocument]) -> list[dict[str, Any]]:
    return [{"index": ranked.index, **_rerank_metadata(ranked)} for ranked in ranking]


def _to_documents(ranking: Sequence[RankedDocument], documents: Sequence[Document]) -> list[Document]:
    """Return copies of the documents of a ranking, with their scores."""
    return [
        with_metadata(documents[ranked.index], _rerank_metadata(ranked), without=RERANK_METADATA_KEYS)
        for ranked in ranking
    ]
