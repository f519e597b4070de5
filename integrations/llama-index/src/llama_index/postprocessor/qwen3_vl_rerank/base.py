"""`Qwen3VLRerank`: a postprocessor that reranks nodes by their text, images and videos."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.embeddings.qwen3_vl.nodes import (
    RERANK_ERROR_KEY,
    names_file,
    node_input_or_error,
    with_rerank_metadata,
)
from llama_index.embeddings.qwen3_vl.queries import bundle_input
from llama_index.embeddings.qwen3_vl.settings import MODEL_DESCRIPTION, LlamaIndexModelSettings

from qwen3vl.adapters.registry import MODELS

if TYPE_CHECKING:
    from qwen3vl import RankedDocument, Reranker

log = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)


class Qwen3VLRerank(LlamaIndexModelSettings, BaseNodePostprocessor):
    """Qwen3-VL-Reranker: reranks nodes by a query that is a text, an image (`QueryBundle.image_path`) or both.

    Nodes are returned as new `NodeWithScore`s, best first, with scores between 0 and 1; equal scores keep their
    order. The model loads on first use, once per process for all objects with equal settings. One object may be used
    by many threads and event loops at once.

    Further fields are those of `qwen3vl.adapters.settings.ModelSettings` (revision, device, dtype, policy, media_keys,
    model_kwargs) and of LlamaIndex's `BaseNodePostprocessor`.

    Attributes:
        model: A hub id, a local folder, `"tiny"` (the small model that comes with `qwen3vl`), or the URL of a server.
            `model_name` is accepted as another name.
        top_n: Maximum number of nodes to return.
        keep_retrieval_score: Whether to write the node's score before reranking to its metadata, under
            `retrieval_score`.
        instruction: What makes a node relevant; None means the model's default.
        on_error: What happens to a node that cannot be read: `"keep"` returns it after all others, without a score
            and with the reason in its metadata under `rerank_error`; `"raise"` raises a `qwen3vl.BatchError`.

    Example:
        ```python
        from llama_index.core.schema import NodeWithScore, TextNode
        from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLRerank

        rerank = Qwen3VLRerank(model="tiny", top_n=1)
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("a blue star", "a red circle")]
        (best,) = rerank.postprocess_nodes(nodes, query_str="a red circle")
        assert best.node.text == "a red circle"
        ```
    """

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), validate_assignment=True
    )

    model: str = Field(default="Qwen/Qwen3-VL-Reranker-2B", description=MODEL_DESCRIPTION)
    if TYPE_CHECKING:
        model_name: str = Field(default="Qwen/Qwen3-VL-Reranker-2B")
    else:

        @property
        def model_name(self) -> str:
            """Another name of `model`."""
            return self.model

        @model_name.setter
        def model_name(self, value: str) -> None:
            self.model = value

    top_n: int = Field(default=5, ge=1, description="Maximum number of nodes to return.")
    keep_retrieval_score: bool = Field(
        default=False,
        description='Whether to write the score before reranking to the metadata, under "retrieval_score".',
    )
    instruction: str | None = Field(
        default=None, description="What makes a node relevant; None means the model's default."
    )
    on_error: Literal["keep", "raise"] = Field(
        default="keep",
        description='What happens to a node that cannot be read: "keep" returns it after all others, without a score '
        'and with the reason in its metadata under "rerank_error"; "raise" raises a qwen3vl.BatchError.',
    )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes this class.

        Returns:
            "Qwen3VLRerank".
        """
        return "Qwen3VLRerank"

    @property
    def reranker(self) -> Reranker:
        """The `Reranker` with the present settings, for `qwen3vl.Retriever`; loads the model."""
        return self._model.hold(MODELS.reranker(**self.engine_arguments(self.model, self.instruction)))

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_input(query_bundle)
        with self._events(nodes, query_bundle) as reranked:
            if inputs := self._inputs(nodes):
                ranking = self.reranker.rank(query, inputs, on_error=self._on_item_error)
                reranked += self._select(nodes, inputs, ranking)
        return reranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_input(query_bundle)
        with self._events(nodes, query_bundle) as reranked:
            if inputs := self._inputs(nodes):
                reranker = self._model.hold(
                    await MODELS.areranker(**self.engine_arguments(self.model, self.instruction))
                )
                ranking = await reranker.arank(query, inputs, on_error=self._on_item_error)
                reranked += self._select(nodes, inputs, ranking)
        return reranked

    @contextmanager
    def _events(self, nodes: list[NodeWithScore], query: QueryBundle | None) -> Iterator[list[NodeWithScore]]:
        """Send the start event of a reranking, and the end event with the nodes that are added to the yielded list."""
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: "" if query is None else query.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        event_id = self.callback_manager.on_event_start(CBEventType.RERANKING, payload=payload)
        reranked: list[NodeWithScore] = []
        try:
            yield reranked
        finally:
            dispatcher.event(ReRankEndEvent(nodes=reranked))
            payload = {EventPayload.NODES: reranked}
            self.callback_manager.on_event_end(CBEventType.RERANKING, payload=payload, event_id=event_id)

    @property
    def _on_item_error(self) -> Literal["raise", "collect"]:
        return "raise" if self.on_error == "raise" else "collect"

    def _inputs(self, nodes: Sequence[NodeWithScore]) -> list[Any]:
        return [node_input_or_error(node.node, self.media_keys) for node in nodes]

    def _select(
        self, nodes: Sequence[NodeWithScore], inputs: Sequence[Any], ranking: Sequence[RankedDocument]
    ) -> list[NodeWithScore]:
        """Return the best nodes, and log why others have no score."""
        self._log_failures(ranking, inputs)
        return [self._with_score(nodes[document.index], document) for document in ranking[: self.top_n]]

    def _log_failures(self, ranking: Sequence[RankedDocument], inputs: Sequence[Any]) -> None:
        """Log why nodes have no score; once per object, that the policy allows no file."""
        num_denied = 0
        for document in ranking:
            if document.error is None:
                continue
            if not self.policy.folders and names_file(inputs[document.index]):
                num_denied += 1
            else:
                log.warning("not reranked: %s", document.error)
        if num_denied:
            self._once.warning(
                log,
                "policy",
                "not reranked: %d of %d nodes name files, and the policy of this Qwen3VLRerank allows none. They come "
                "last, without a score. policy=MediaPolicy(folders=('photos',)) allows the files of a folder. This is "
                "logged once",
                num_denied,
                len(inputs),
            )

    def _with_score(self, node: NodeWithScore, document: RankedDocument) -> NodeWithScore:
        metadata: dict[str, Any] = {} if document.error is None else {RERANK_ERROR_KEY: document.error.reason}
        if self.keep_retrieval_score:
            metadata["retrieval_score"] = node.score
        return NodeWithScore(node=with_rerank_metadata(node.node, metadata), score=document.score)


def _query_input(bundle: QueryBundle | None) -> Any:
    """Return the query as `Reranker.rank` accepts it."""
    if bundle is None:
        raise ValueError("the query is missing: pass query_bundle or query_str")
    return bundle_input(bundle)
