"""`Qwen3VLPictures`: nodes with media as images that a language model can see."""

from __future__ import annotations

import logging

from llama_index.core.bridge.pydantic import ConfigDict, Field, field_validator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, ImageNode, NodeWithScore, QueryBundle
from llama_index.embeddings.qwen3_vl.nodes import document_of_node
from llama_index.embeddings.qwen3_vl.settings import ComponentSettings

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.adapters.previews import PREVIEW_SIDE, preview_jpeg
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import InputError
from qwen3vl.media import UNTRUSTED_POLICY, MediaPolicy, policy_for_documents

log = logging.getLogger(__name__)


class Qwen3VLPictures(ComponentSettings, BaseNodePostprocessor):
    """Replaces each node that has media by an `ImageNode` with a JPEG: the image, the rendered page, or four frames.

    For query engines with `multimodal=True`: their language models see the images of `ImageNode`s, and no other
    media. Nodes without media are returned as they are, and so are nodes whose media cannot be read, with a warning
    in the log.

    Attributes:
        side: Maximum length of an image's longer side, in pixels.
        policy: Which files and addresses media references may reach. The default allows public URLs and data URIs,
            and no files.
        media_keys: Metadata keys under which nodes carry media references.

    Example:
        ```python
        from llama_index.core.schema import ImageNode, NodeWithScore
        from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures
        from PIL import Image
        from qwen3vl import MediaPolicy

        Image.new("RGB", (64, 64), "red").save("red.png")
        pictures = Qwen3VLPictures(side=32, policy=MediaPolicy(folders=(".",)))
        (shown,) = pictures.postprocess_nodes([NodeWithScore(node=ImageNode(image_path="red.png"))])
        assert shown.node.image_mimetype == "image/jpeg"
        ```
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_assignment=True)

    side: int = Field(default=PREVIEW_SIDE, ge=1, description="Maximum length of an image's longer side, in pixels.")
    policy: MediaPolicy = Field(
        default=UNTRUSTED_POLICY, description="Which files and addresses media references may reach."
    )
    media_keys: MediaKeys = Field(
        default=DEFAULT_KEYS, description="Metadata keys under which nodes carry media references."
    )

    @field_validator("policy")
    @classmethod
    def _check_policy(cls, value: MediaPolicy) -> MediaPolicy:
        return policy_for_documents(value)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes this class.

        Returns:
            "Qwen3VLPictures".
        """
        return "Qwen3VLPictures"

    def _postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,  # noqa: ARG002 (LlamaIndex's name)
    ) -> list[NodeWithScore]:
        return [NodeWithScore(node=self._to_image_node(node.node), score=node.score) for node in nodes]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await run_in_executor(self._postprocess_nodes, nodes, query_bundle)

    def _to_image_node(self, node: BaseNode) -> BaseNode:
        try:
            document = document_of_node(node, self.media_keys)
        except InputError as error:
            log.warning("no image for node %s: %s", node.node_id, error)
            return node
        jpeg = preview_jpeg(document, self.policy, self.side)
        if jpeg is None:
            return node
        return ImageNode(
            id_=node.node_id,
            text=document.text,
            image=jpeg,
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
