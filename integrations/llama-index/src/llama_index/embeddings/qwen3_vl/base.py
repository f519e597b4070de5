"""`Qwen3VLEmbedding`: an embedding model that embeds nodes with their images and videos."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.embeddings.qwen3_vl._frame_lookup import nodes_being_embedded, nodes_being_hashed
from llama_index.embeddings.qwen3_vl.batching import InputType
from llama_index.embeddings.qwen3_vl.cache import CachedInputs, cache_key, item_digest
from llama_index.embeddings.qwen3_vl.media_methods import MediaMethods
from llama_index.embeddings.qwen3_vl.nodes import (
    as_storable,
    has_inline_media,
    node_input,
    node_input_or_error,
    with_source,
)
from llama_index.embeddings.qwen3_vl.results import EmbedResult
from llama_index.embeddings.qwen3_vl.settings import MODEL_DESCRIPTION, LlamaIndexModelSettings
from llama_index.embeddings.qwen3_vl.text_methods import TextMethods

from qwen3vl.adapters.inputs import describe_inputs
from qwen3vl.adapters.registry import MODELS
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import InputError
from qwen3vl.inputs import as_item

if TYPE_CHECKING:
    from qwen3vl import Embedder

log = logging.getLogger(__name__)


class Qwen3VLEmbedding(LlamaIndexModelSettings, TextMethods, MediaMethods):
    """Qwen3-VL-Embedding: embeds texts, images, PDF pages, videos and mixtures of them into one vector space.

    Called with nodes, as by an `IngestionPipeline`, it embeds each node by what it holds: its text, its image
    (`ImageNode`, `Node.image_resource`, or a reference in its metadata), its video, or several of them together in
    one vector. Vectors are lists of `dimensions` Python floats and have length 1.

    The model loads on first use, once per process for all objects with equal settings. One object may be used by
    many threads and event loops at once. Inputs that cannot be embedded raise a `qwen3vl.BatchError`, which names
    all of them.

    Further fields are those of `qwen3vl.adapters.settings.ModelSettings` (revision, device, dtype, policy, media_keys,
    model_kwargs) and of LlamaIndex's `BaseEmbedding`.

    Attributes:
        model_name: A hub id, a local folder, `"tiny"` (the small model that comes with `qwen3vl`), or the URL of a
            server. `model` is accepted as another name.
        dimensions: Truncate vectors to this many values (Matryoshka representation). None keeps all.
        query_instruction: Instruction for queries; None means the one for documents.
        document_instruction: Instruction for documents; None means the model's default.
        embed_batch_size: Maximum number of inputs between two events. The engine makes its own batches, by tokens.
        on_error: What happens to a node that cannot be embedded, where nodes are passed, as in pipelines: `"raise"`
            raises a `BatchError` after all other nodes are done; `"skip"` leaves the node out and logs a warning. The
            docstore and the cache of a pipeline take it for done, and never try it again.
        lookup_nodes: Whether to look up the nodes in the frames of LlamaIndex's functions that pass only their texts:
            those that `VectorStoreIndex(nodes)` and the cache of an `IngestionPipeline` call. If False, these texts
            are embedded as texts, and the cache ignores media.
        embeddings_cache: A LlamaIndex key-value store that keeps vectors by recipe, instruction and content.

    Example:
        ```python
        from llama_index.core import VectorStoreIndex
        from llama_index.core.schema import TextNode
        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

        embed_model = Qwen3VLEmbedding(model_name="tiny")
        nodes = embed_model([TextNode(text="a red circle"), TextNode(text="a blue star")])
        index = VectorStoreIndex(nodes, embed_model=embed_model)
        assert index.as_retriever(similarity_top_k=1).retrieve("a red circle")[0].text == "a red circle"
        ```
    """

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=("pydantic_model_",),
        arbitrary_types_allowed=True,
        validate_assignment=True,
    )

    model_name: str = Field(default="Qwen/Qwen3-VL-Embedding-2B", description=MODEL_DESCRIPTION)
    if TYPE_CHECKING:
        model: str = Field(default="Qwen/Qwen3-VL-Embedding-2B")
    else:

        @property
        def model(self) -> str:
            """Another name of `model_name`."""
            return self.model_name

        @model.setter
        def model(self, value: str) -> None:
            self.model_name = value

    dimensions: int | None = Field(
        default=None, ge=1, description="Truncate vectors to this many values (Matryoshka representation)."
    )
    query_instruction: str | None = Field(
        default=None, description="Instruction for queries; None means the one for documents."
    )
    document_instruction: str | None = Field(
        default=None, description="Instruction for documents; None means the model's default."
    )
    embed_batch_size: int = Field(
        default=2048,
        gt=0,
        le=2048,
        description="Maximum number of inputs between two events. The engine makes its own batches, by tokens.",
    )
    on_error: Literal["raise", "skip"] = Field(
        default="raise",
        description='What happens to a passed node that cannot be embedded: "raise" raises a BatchError, "skip" '
        "leaves it out and logs a warning; the docstore and the cache of a pipeline take it for done.",
    )
    lookup_nodes: bool = Field(
        default=True,
        description="Whether to look up the nodes in the frames of LlamaIndex's functions that pass only their texts.",
    )
    embeddings_cache: Any = Field(default=None, exclude=True, description="A key-value store that keeps vectors.")

    _unpickled: bool = PrivateAttr(default=False)
    """Whether this object comes from a pickle; the registry then keeps its model loaded for later copies."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes this class.

        Returns:
            "Qwen3VLEmbedding".
        """
        return "Qwen3VLEmbedding"

    @property
    def embedder(self) -> Embedder:
        """The `Embedder` with the present settings, for `qwen3vl.ingest` and `Retriever`; loads the model."""
        return self._model.hold(MODELS.embedder(**self._embedder_arguments()))

    def to_payload(self) -> dict[str, Any]:
        """Return the description of the model in LlamaIndex's events; it contains no secrets.

        Returns:
            Class name, model name, batch size and dimensions.
        """
        return {
            "class_name": self.class_name(),
            "model_name": self.model_name,
            "embed_batch_size": self.embed_batch_size,
            "dimensions": self.dimensions,
        }

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the settings; while a pipeline computes a cache key, also a digest of its nodes' media under `media`.

        Args:
            **kwargs: Arguments of pydantic's `model_dump`.

        Returns:
            JSON values. `from_dict` accepts them if `media` is not among them.
        """
        settings = super().to_dict(**kwargs)
        media = self._media_digest(nodes_being_hashed()) if self.lookup_nodes else None
        return settings if media is None else {**settings, "media": media}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._unpickled = True

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embed nodes by what they hold.

        Args:
            nodes: Nodes of any kind; their `embedding` is set.
            **kwargs: `show_progress` shows a progress bar; everything else is ignored.

        Returns:
            The nodes, without those that failed if `on_error` is `"skip"`. Nodes that LlamaIndex would not store
            completely are replaced by copies with further metadata, and nodes without a source (`ref_doc_id`) by copies
            that are their own: vector stores delete by it.

        Raises:
            BatchError: Nodes cannot be embedded and `on_error` is `"raise"`.
        """
        inputs = [node_input_or_error(node, self.media_keys) for node in nodes]
        names = describe_inputs(inputs)
        result = self._embed_batches(inputs, names, "document", bool(kwargs.get("show_progress")))
        return self._with_vectors(nodes, inputs, result)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embed nodes by what they hold, without blocking the event loop.

        Args:
            nodes: Nodes of any kind; their `embedding` is set.
            **kwargs: `show_progress` shows a progress bar; everything else is ignored.

        Returns:
            The nodes, as `__call__` returns them.

        Raises:
            BatchError: Nodes cannot be embedded and `on_error` is `"raise"`.
        """
        inputs = [node_input_or_error(node, self.media_keys) for node in nodes]
        names = await run_in_executor(describe_inputs, inputs)
        result = await self._aembed_batches(inputs, names, "document", bool(kwargs.get("show_progress")))
        return self._with_vectors(nodes, inputs, result)

    def _with_vectors(self, nodes: Sequence[BaseNode], inputs: Sequence[Any], result: EmbedResult) -> list[BaseNode]:
        if self.on_error == "raise":
            result.vectors_or_raise()
        for error in result.errors:
            log.warning("not embedded: %s", error)
        embedded: list[BaseNode] = []
        for node, value, vector in zip(nodes, inputs, result.vectors, strict=True):
            if vector is not None:
                node.embedding = vector
                embedded.append(with_source(as_storable(node, value, self.media_keys)))
        if num_inline := sum(map(has_inline_media, nodes)):
            log.warning(
                "%d nodes have media as bytes, which most stores do not keep: give them a path or a URL", num_inline
            )
        return embedded

    def _inputs_for(self, texts: Sequence[str]) -> list[Any]:
        """Return the inputs of the nodes whose texts an index is embedding; without such nodes, the texts."""
        nodes = nodes_being_embedded(texts) if self.lookup_nodes else None
        return list(texts) if nodes is None else [node_input_or_error(node, self.media_keys) for node in nodes]

    def _embed(self, inputs: Sequence[Any], input_type: InputType, show_progress: bool = False) -> EmbedResult:
        embedder = self.embedder
        cached = self._look_up(embedder, inputs, input_type)
        return cached.complete(embedder.embed(cached.missing, **self._embed_options(input_type, show_progress)))

    async def _aembed(self, inputs: Sequence[Any], input_type: InputType, show_progress: bool = False) -> EmbedResult:
        embedder = self._model.hold(await MODELS.aembedder(**self._embedder_arguments()))
        options = self._embed_options(input_type, show_progress)
        if self.embeddings_cache is None:
            cached = self._look_up(embedder, inputs, input_type)
            return cached.complete(await embedder.aembed(cached.missing, **options))
        # The keys are digests of files, and the cache may be a server.
        cached = await run_in_executor(self._look_up, embedder, inputs, input_type)
        return await run_in_executor(cached.complete, await embedder.aembed(cached.missing, **options))

    def _embedder_arguments(self) -> dict[str, Any]:
        arguments = self.engine_arguments(self.model_name, self.document_instruction)
        if self.dimensions is not None:
            arguments["dimensions"] = self.dimensions
        # The workers of a pipeline unpickle a new object for every task: the registry keeps their model loaded.
        return {**arguments, "keep": self._unpickled}

    def _embed_options(self, input_type: InputType, show_progress: bool) -> dict[str, Any]:
        return {"instruction": self._instruction(input_type), "progress": show_progress, "on_error": "collect"}

    def _instruction(self, input_type: InputType) -> str | None:
        return self.query_instruction if input_type == "query" else None

    def _look_up(self, embedder: Embedder, inputs: Sequence[Any], input_type: InputType) -> CachedInputs:
        instruction = self._instruction(input_type) or embedder.instruction

        def key_of(value: Any) -> str | None:
            return cache_key(value, instruction, embedder.recipe.digest, self.policy)

        return CachedInputs(self.embeddings_cache, inputs, key_of)

    def _media_digest(self, nodes: Sequence[BaseNode]) -> str | None:
        """Return a digest of the media of nodes; None if none has any."""
        parts: list[Any] = []
        for node in nodes:
            try:
                value = node_input(node, self.media_keys)
                if value.keys() == {"text"}:
                    continue
                # The cache returns whole nodes, so a copy of a file under another name must not match the first.
                parts.append([sorted(value.items()), item_digest(as_item(value), self.policy)])
            except (InputError, OSError):
                parts.append(node.node_id)  # reported when the node is embedded
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest() if parts else None
