"""`Qwen3VLSplitter`: splits texts with any node parser and keeps nodes with media."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, field_validator
from llama_index.core.node_parser import NodeParser, SentenceSplitter
from llama_index.core.node_parser.loading import load_parser
from llama_index.core.node_parser.node_utils import default_id_func
from llama_index.core.schema import BaseNode
from llama_index.core.schema import Document as LlamaDocument
from llama_index.embeddings.qwen3_vl._frame_lookup import nodes_being_hashed
from llama_index.embeddings.qwen3_vl.nodes import as_storable, has_media, node_input_or_error, with_source
from llama_index.embeddings.qwen3_vl.settings import ComponentSettings
from llama_index.node_parser.qwen3_vl.media_nodes import media_node_of_document

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.errors import InputError


class Qwen3VLSplitter(ComponentSettings, NodeParser):
    """Splits nodes and documents that are texts with another node parser, and passes those with media on undivided.

    LlamaIndex's node parsers split the text of every node and drop its image or video, unless its metadata name them.
    Here, nodes keep their id, media and relationships. One without a source becomes its own source, and one whose
    `get_content` is empty gets `media_kind` in its metadata, so that indexes keep it. Documents become nodes, whose
    source is the document: an `ImageNode`, a `Node` with a video, or a `TextNode` if only the metadata name media.
    Results are in the order of their inputs.

    The other fields of LlamaIndex's `NodeParser` are those of `parser`, except `id_func`, which makes the ids of nodes
    with media from documents.

    Attributes:
        parser: The node parser for texts.
        media_keys: Metadata keys under which nodes carry media references.

    Example:
        ```python
        from llama_index.core.node_parser import TokenTextSplitter
        from llama_index.core.schema import Document, ImageNode
        from llama_index.node_parser.qwen3_vl import Qwen3VLSplitter

        splitter = Qwen3VLSplitter(parser=TokenTextSplitter(chunk_size=32, chunk_overlap=0))
        image, text = ImageNode(image_path="red.png"), Document(text="a red circle. " * 20)
        nodes = splitter.get_nodes_from_documents([image, text])
        assert nodes[0].image_path == "red.png"
        assert len(nodes) > 2
        ```
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_assignment=True)

    parser: NodeParser = Field(default_factory=SentenceSplitter, description="The node parser for texts.")
    media_keys: MediaKeys = Field(
        default=DEFAULT_KEYS, description="Metadata keys under which nodes carry media references."
    )

    @field_validator("parser", mode="before")
    @classmethod
    def _load_parser(cls, value: Any) -> Any:
        """Accept what `to_dict` returns for a parser."""
        return load_parser(_without_id_func(value)) if isinstance(value, dict) else value

    @field_validator("id_func", mode="before")
    @classmethod
    def _check_id_func(cls, value: Any) -> Any:
        """Take the form of the default `id_func` in `to_dict` for None; refuse other functions in that form."""
        return _without_id_func({"id_func": value}).get("id_func")

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes this class.

        Returns:
            "Qwen3VLSplitter".
        """
        return "Qwen3VLSplitter"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the settings; while a pipeline computes a cache key, also a digest of its nodes' media under `media`.

        Args:
            **kwargs: Arguments of pydantic's `model_dump`.

        Returns:
            JSON values. `from_dict` accepts them if `media` is not among them.
        """
        settings = super().to_dict(**kwargs)
        keys = [self._media_key(node) for node in nodes_being_hashed()]
        if not any(keys):
            return settings
        return {**settings, "media": hashlib.sha256(json.dumps(keys).encode()).hexdigest()}

    def _media_key(self, node: BaseNode) -> list[Any]:
        """Return what is embedded for a node with media, or its id if that cannot be read; [] for one without media."""
        if not has_media(node, self.media_keys):
            return []
        value = node_input_or_error(node, self.media_keys)
        return [node.node_id] if isinstance(value, InputError) else sorted(value.items())

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        results: list[BaseNode] = []
        for with_media, group in self._groups(nodes):
            if with_media:
                results += map(self._media_node, group)
            else:
                results += self.parser(group, show_progress=show_progress, **kwargs)
        return results

    async def _aparse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        results: list[BaseNode] = []
        for with_media, group in self._groups(nodes):
            if with_media:
                results += map(self._media_node, group)
            else:
                results += await self.parser.acall(group, show_progress=show_progress, **kwargs)
        return results

    def _groups(self, nodes: Sequence[BaseNode]) -> Iterator[tuple[bool, list[BaseNode]]]:
        """Yield neighbours that all have media, or all have none, in order."""
        for with_media, group in groupby(nodes, key=lambda node: has_media(node, self.media_keys)):
            yield with_media, list(group)

    def _media_node(self, node: BaseNode) -> BaseNode:
        """Return the node for a document, or the node itself, with a source, and `media_kind` if it has no content."""
        if isinstance(node, LlamaDocument):
            id_func = default_id_func if self.id_func is None else self.id_func  # None in LlamaIndex 0.13
            node = media_node_of_document(node, id_func(0, node))
        node = with_source(node)
        value = node_input_or_error(node, self.media_keys)
        # The error is that of this node alone, when it is embedded.
        return node if isinstance(value, InputError) else as_storable(node, value, self.media_keys)

    def _postprocess_parsed_nodes(
        self,
        nodes: list[BaseNode],
        parent_doc_map: dict[str, LlamaDocument],  # noqa: ARG002 (LlamaIndex's name)
    ) -> list[BaseNode]:
        """Return the nodes: `parser` has set relationships and metadata of its own already."""
        return nodes


def _without_id_func(settings: dict[str, Any]) -> dict[str, Any]:
    """Drop the default `id_func` from what `to_dict` returns, because LlamaIndex's classes do not read it back.

    Another function in that form, which has only its name, is a `ValueError`.
    """
    id_func = settings.get("id_func")
    if not isinstance(id_func, dict):
        return settings
    if id_func.get("id_func_name") != "default_id_func":
        raise ValueError(
            f"the function {id_func.get('id_func_name')} that makes ids is not stored with the settings; construct the "
            "parser with id_func instead of reading it from a dict"
        )
    return {key: value for key, value in settings.items() if key != "id_func"}
