"""A postprocessor that looks at the pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.embeddings.qwen3_vl.nodes import input_or_error, noted
from llama_index.embeddings.qwen3_vl.queries import MediaQuery
from llama_index.embeddings.qwen3_vl.settings import LlamaIndexModelSettings, state_without_model

from qwen3vl.adapters.registry import MODELS
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import BatchError, ItemError

if TYPE_CHECKING:
    from qwen3vl import Reranker

log = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)


class Qwen3VLRerank(LlamaIndexModelSettings, BaseNodePostprocessor):
    """Qwen3-VL-Reranker: judges nodes by a query in words, by picture (`QueryBundle.image_path`) or both.

    Nodes come back best first, equal scores in their order, as new `NodeWithScore`s with scores between 0 and 1.
    The model loads on first use, once per process for all objects of equal settings.  One object may be used by
    many threads and event loops at once.
    """

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), validate_assignment=True
    )

    model: str = Field(default="Qwen/Qwen3-VL-Reranker-2B", description='A hub id, a local folder, or "tiny".')
    top_n: int = Field(default=5, ge=1, description="How many nodes are kept.")
    keep_retrieval_score: bool = Field(
        default=False, description='Whether the score so far goes to the metadata, under "retrieval_score".'
    )
    instruction: str | None = Field(default=None, description="What counts as an answer; None is the model's default.")
    on_error: Literal["keep", "raise"] = Field(
        default="keep",
        description="A node that cannot be read: kept behind all others, without a score and with the reason in its "
        'metadata under "rerank_error"; or a qwen3vl.BatchError.',
    )
    _held: Any = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        return "Qwen3VLRerank"

    @property
    def reranker(self) -> Reranker:
        """The core's object, for `qwen3vl.Retriever`; loads the model."""
        self._held = found = MODELS.reranker(**self.engine_arguments(self.model, self.instruction))
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the model."""
        return {**state_without_model(self), "__pydantic_private__": {"_held": None}}

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        event = self._start(nodes, query_bundle)
        kept: list[NodeWithScore] = []
        try:
            kept = self._judge(nodes, query)
        finally:
            self._end(event, kept)
        return kept

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        event = self._start(nodes, query_bundle)
        kept: list[NodeWithScore] = []
        try:
            kept = await run_in_executor(self._judge, nodes, query)
        finally:
            self._end(event, kept)
        return kept

    def _start(self, nodes: list[NodeWithScore], query: QueryBundle | None) -> str:
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: "" if query is None else query.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        return self.callback_manager.on_event_start(CBEventType.RERANKING, payload=payload)

    def _end(self, event: str, kept: list[NodeWithScore]) -> None:
        dispatcher.event(ReRankEndEvent(nodes=kept))
        self.callback_manager.on_event_end(CBEventType.RERANKING, payload={EventPayload.NODES: kept}, event_id=event)

    def _judge(self, nodes: Sequence[NodeWithScore], query: Any) -> list[NodeWithScore]:
        if not nodes:
            return []
        inputs = [input_or_error(each.node, self.media_keys) for each in nodes]
        batch = self.reranker.score(query, inputs, on_error="collect")
        if batch.errors and self.on_error == "raise":
            raise BatchError(batch.errors, batch.values)
        failed = {error.index: error for error in batch.errors}
        scores = {place: float(score) for place, score in enumerate(batch.values) if place not in failed}
        order = sorted(range(len(nodes)), key=lambda place: (place in failed, -scores.get(place, 0.0)))
        for error in batch.errors:
            log.warning("not reranked: %s", error)
        return [self._scored(nodes[place], scores.get(place), failed.get(place)) for place in order[: self.top_n]]

    def _scored(self, given: NodeWithScore, score: float | None, error: ItemError | None) -> NodeWithScore:
        told: dict[str, Any] = {"rerank_error": error.reason} if error is not None else {}
        if self.keep_retrieval_score:
            told["retrieval_score"] = given.score
        return NodeWithScore(node=noted(given.node, told), score=score)


def _query(bundle: QueryBundle | None) -> Any:
    """The query's words and picture."""
    if bundle is None:
        raise ValueError("the query is missing: pass query_bundle or query_str")
    if isinstance(bundle, MediaQuery) and bundle.given is not None:
        return bundle.given
    query = {"text": bundle.query_str, "image": bundle.image_path}
    return {key: value for key, value in query.items() if value}
