"""Pictures, pages and clips as language models take them."""

from __future__ import annotations

import logging

from llama_index.core.bridge.pydantic import ConfigDict, Field, field_validator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, ImageNode, NodeWithScore, QueryBundle
from llama_index.embeddings.qwen3_vl.nodes import document_of_node

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import InputError
from qwen3vl.media import UNTRUSTED_POLICY, MediaPolicy, require_folders

log = logging.getLogger(__name__)


class Qwen3VLPictures(BaseNodePostprocessor):
    """Makes an `ImageNode` with a JPEG of each node that has media: pages as they look, clips as four frames in one.

    For query engines with `multimodal=True`, whose language models see the pictures of `ImageNode`s and nothing else.
    A node whose media cannot be read stays as it is, with a warning in the log.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_assignment=True)

    side: int = Field(default=1024, ge=1, description="Pixels of the longer side, at most.")
    policy: MediaPolicy = Field(default=UNTRUSTED_POLICY, description="What media references may reach.")
    media_keys: MediaKeys = Field(default=DEFAULT_KEYS, description="Metadata under which nodes carry media.")

    @field_validator("policy")
    @classmethod
    def _named(cls, value: MediaPolicy) -> MediaPolicy:
        return require_folders(value)

    @classmethod
    def class_name(cls) -> str:
        return "Qwen3VLPictures"

    def _postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,  # noqa: ARG002 (LlamaIndex's name)
    ) -> list[NodeWithScore]:
        return [NodeWithScore(node=self._shown(each.node), score=each.score) for each in nodes]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await run_in_executor(self._postprocess_nodes, nodes, query_bundle)

    def _shown(self, node: BaseNode) -> BaseNode:
        from qwen3vl.media.preview import data_uri, preview

        try:
            document = document_of_node(node, self.media_keys)
        except InputError as error:
            log.warning("no picture of node %s: %s", node.node_id, error)
            return node
        picture = preview(document, self.policy, self.side)
        uri = None if picture is None else data_uri(picture)
        if uri is None:
            return node
        return ImageNode(
            id_=node.node_id,
            text=document.text,
            image=uri.partition(",")[2],
            image_mimetype="image/jpeg",
            metadata=node.metadata,
            excluded_embed_metadata_keys=node.excluded_embed_metadata_keys,
            excluded_llm_metadata_keys=[
                *node.excluded_llm_metadata_keys,
                *self.media_keys.image,
                *self.media_keys.video,
            ],
            relationships=node.relationships,
        )
