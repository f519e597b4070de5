"""An embedding model that sees what nodes hold."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode, ImageType
from llama_index.embeddings.qwen3_vl._frame_lookup import nodes_being_embedded, nodes_being_hashed
from llama_index.embeddings.qwen3_vl.cache import Embedding, EmbedResult, cache_key, content_digest, through
from llama_index.embeddings.qwen3_vl.nodes import holds_data, input_or_error, node_input, storable
from llama_index.embeddings.qwen3_vl.queries import MediaQuery, media_query
from llama_index.embeddings.qwen3_vl.settings import LlamaIndexModelSettings, state_without_model

from qwen3vl.adapters.registry import MODELS
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import BatchError, InputError
from qwen3vl.inputs import as_item

if TYPE_CHECKING:
    from qwen3vl import Batch, Embedder

log = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)
Kind = Literal["query", "document"]


class Qwen3VLEmbedding(LlamaIndexModelSettings, MultiModalEmbedding):
    """Qwen3-VL-Embedding: texts, pictures, pages, clips and mixtures of them as vectors of one space.

    As a transformation and in indexes it embeds each node by what it holds: its text, its picture (`ImageNode`,
    `Node.image_resource`, or a reference in its metadata), its clip, or several fused into one vector.

    The model loads on first use, once per process for all objects of equal settings.  One object may be used by
    many threads and event loops at once.  Vectors are lists of `dimensions` Python floats of length 1.

    Errors: `qwen3vl.BatchError` names every input that cannot be used.
    """

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=("pydantic_model_",),
        arbitrary_types_allowed=True,
        validate_assignment=True,
    )

    model_name: str = Field(default="Qwen/Qwen3-VL-Embedding-2B", description='A hub id, a local folder, or "tiny".')
    dimensions: int | None = Field(default=None, ge=1, description="Cut the vectors to this many values (Matryoshka).")
    query_instruction: str | None = Field(default=None, description="For queries; None is that of documents.")
    document_instruction: str | None = Field(default=None, description="For documents; None is the model's default.")
    embed_batch_size: int = Field(
        default=2048, gt=0, le=2048, description="Inputs between two events; the engine makes batches by tokens."
    )
    on_error: Literal["raise", "skip"] = Field(
        default="raise",
        description="What a node does that cannot be embedded, where nodes are handed over as in pipelines: a "
        "BatchError, or it is left out, with a warning in the log.",
    )
    embeddings_cache: Any = Field(default=None, exclude=True, description="A key-value store that remembers vectors.")

    _held: Any = PrivateAttr(default=None)
    _unpickled: bool = PrivateAttr(default=False)

    @classmethod
    def class_name(cls) -> str:
        return "Qwen3VLEmbedding"

    @property
    def embedder(self) -> Embedder:
        """The core's object, for `qwen3vl.ingest` and `Retriever`; loads the model."""
        settings = self.engine_arguments(self.model_name, self.document_instruction)
        if self.dimensions is not None:
            settings["dimensions"] = self.dimensions
        # Asked for by its settings each time, because fields may be changed.
        # A pipeline's workers unpickle a new object for each task: the registry keeps their model loaded.
        self._held = found = MODELS.embedder(keep=self._unpickled, **settings)
        return found

    def to_payload(self) -> dict[str, Any]:
        """What events tell of the model: nothing secret."""
        return {
            "class_name": self.class_name(),
            "model_name": self.model_name,
            "embed_batch_size": self.embed_batch_size,
            "dimensions": self.dimensions,
        }

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """The settings.  For a pipeline's cache also a digest of the media that the nodes in question hold."""
        told = super().to_dict(**kwargs)
        media = self._media_digest(nodes_being_hashed())
        return told if media is None else {**told, "media": media}

    def _media_digest(self, nodes: Sequence[BaseNode]) -> str | None:
        told: list[Any] = []
        for node in nodes:
            try:
                given = node_input(node, self.media_keys)
                if given.keys() == {"text"}:
                    continue
                # The cache gives back whole nodes: a copy elsewhere is another one.
                told.append([sorted(given.items()), content_digest(as_item(given), self.policy)])
            except (InputError, OSError):
                told.append(node.node_id)  # it fails when it is embedded
        return hashlib.sha256(json.dumps(told).encode()).hexdigest() if told else None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the model: the copy in another process loads its own when it needs it."""
        return {**state_without_model(self), "__pydantic_private__": {"_held": None, "_unpickled": True}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._unpickled = True

    # Texts and queries -------------------------------------------------------------------------------------------

    def get_query_embedding(self, query: str) -> Embedding:
        """The vector of a query in words."""
        return self._embed_or_raise([query], [query], "query")[0]

    async def aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aembed_or_raise([query], [query], "query"))[0]

    def get_multimodal_query_embedding(self, query: Any) -> Embedding:
        """The vector of a query that is a mapping with any of text, image and video."""
        return self._embed_or_raise([query], [_name(query)], "query")[0]

    async def aget_multimodal_query_embedding(self, query: Any) -> Embedding:
        return (await self._aembed_or_raise([query], [_name(query)], "query"))[0]

    def query_bundle(self, query: Any) -> MediaQuery:
        """A query with pictures or clips for any retriever and for `Qwen3VLRerank`: its vector is in the bundle."""
        return media_query(query, self.get_multimodal_query_embedding(query))

    async def aquery_bundle(self, query: Any) -> MediaQuery:
        return media_query(query, await self.aget_multimodal_query_embedding(query))

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> Embedding:
        """The mean of the queries' vectors."""
        _check_queries(queries)
        return super().get_agg_embedding_from_queries(queries, agg_fn)

    async def aget_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> Embedding:
        _check_queries(queries)
        return await super().aget_agg_embedding_from_queries(queries, agg_fn)

    def get_text_embedding(self, text: str) -> Embedding:
        """The vector of a document's text."""
        return self._embed_or_raise([text], [text], "document")[0]

    async def aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aembed_or_raise([text], [text], "document"))[0]

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **_: Any) -> list[Embedding]:
        """The vectors of texts; where an index asks for those of nodes, by what the nodes hold."""
        return self._embed_or_raise(self._inputs_for(texts), texts, "document", show_progress)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **_: Any
    ) -> list[Embedding]:
        return await self._aembed_or_raise(self._inputs_for(texts), texts, "document", show_progress)

    def _inputs_for(self, texts: Sequence[str]) -> list[Any]:
        nodes = nodes_being_embedded(texts)
        return list(texts) if nodes is None else [input_or_error(node, self.media_keys) for node in nodes]

    # Pictures, clips and mixtures --------------------------------------------------------------------------------

    def get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        """The vector of a picture: a path, a URL, a data URI, or a BytesIO."""
        return self.get_image_embedding_batch([img_file_path])[0]

    async def aget_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return (await self.aget_image_embedding_batch([img_file_path]))[0]

    def get_image_embedding_batch(
        self, img_file_paths: Sequence[ImageType], show_progress: bool = False
    ) -> list[Embedding]:
        """The vectors of pictures, in their order."""
        return self.get_multimodal_embeddings([{"image": each} for each in img_file_paths], show_progress)

    async def aget_image_embedding_batch(
        self, img_file_paths: Sequence[ImageType], show_progress: bool = False
    ) -> list[Embedding]:
        return await self.aget_multimodal_embeddings([{"image": each} for each in img_file_paths], show_progress)

    def get_video_embedding(self, video: Any) -> Embedding:
        """The vector of a clip: a path or URL (with `#t=10,25` for a part), bytes, or a list of frames."""
        return self.get_video_embeddings([video])[0]

    async def aget_video_embedding(self, video: Any) -> Embedding:
        return (await self.aget_video_embeddings([video]))[0]

    def get_video_embeddings(self, videos: Sequence[Any]) -> list[Embedding]:
        """The vectors of clips, in their order."""
        return self.get_multimodal_embeddings([{"video": each} for each in videos])

    async def aget_video_embeddings(self, videos: Sequence[Any]) -> list[Embedding]:
        return await self.aget_multimodal_embeddings([{"video": each} for each in videos])

    def get_multimodal_embedding(self, value: Any) -> Embedding:
        """The vector of a mapping with any of text, image and video (each one or a list), fused into one."""
        return self.get_multimodal_embeddings([value])[0]

    async def aget_multimodal_embedding(self, value: Any) -> Embedding:
        return (await self.aget_multimodal_embeddings([value]))[0]

    @dispatcher.span
    def get_multimodal_embeddings(self, inputs: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        """The vectors of inputs as `qwen3vl.Embedder.embed` takes them, in their order."""
        return self._embed_or_raise(inputs, _names(inputs), "document", show_progress)

    @dispatcher.span
    async def aget_multimodal_embeddings(self, inputs: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        return await self._aembed_or_raise(inputs, _names(inputs), "document", show_progress)

    # Nodes -------------------------------------------------------------------------------------------------------

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Gives each node the vector of what it holds."""
        inputs = [input_or_error(node, self.media_keys) for node in nodes]
        made = self._embed_batches(inputs, _names(inputs), "document", bool(kwargs.get("show_progress")))
        return self._embedded(nodes, inputs, made)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        inputs = [input_or_error(node, self.media_keys) for node in nodes]
        made = await self._aembed_batches(inputs, _names(inputs), "document", bool(kwargs.get("show_progress")))
        return self._embedded(nodes, inputs, made)

    def _embedded(self, nodes: Sequence[BaseNode], inputs: Sequence[Any], made: EmbedResult) -> list[BaseNode]:
        if self.on_error == "raise":
            _settled(made)
        for error in made.errors:
            log.warning("not embedded: %s", error)
        embedded: list[BaseNode] = []
        for node, given, vector in zip(nodes, inputs, made.vectors, strict=True):
            if vector is not None:
                node.embedding = vector
                embedded.append(storable(node, given, self.media_keys))
        if lost := sum(map(holds_data, nodes)):
            log.warning("%d nodes hold media as data, which most stores do not keep: give them a path or a URL", lost)
        return embedded

    # What LlamaIndex requires beneath ----------------------------------------------------------------------------

    def _get_query_embedding(self, query: str) -> Embedding:
        return _settled(self._embed([query], "query"))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await run_in_executor(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return _settled(self._embed([text], "document"))[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await run_in_executor(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return _settled(self._embed(texts, "document"))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await run_in_executor(self._get_text_embeddings, texts)

    def _get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return _settled(self._embed([{"image": img_file_path}], "document"))[0]

    async def _aget_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return await run_in_executor(self._get_image_embedding, img_file_path)

    # The one way to the model ------------------------------------------------------------------------------------

    def _embed_or_raise(
        self, inputs: Sequence[Any], names: Sequence[str], kind: Kind, show_progress: bool = False
    ) -> list[Embedding]:
        return _settled(self._embed_batches(inputs, names, kind, show_progress))

    async def _aembed_or_raise(
        self, inputs: Sequence[Any], names: Sequence[str], kind: Kind, show_progress: bool = False
    ) -> list[Embedding]:
        return _settled(await self._aembed_batches(inputs, names, kind, show_progress))

    def _embed_batches(
        self, inputs: Sequence[Any], names: Sequence[str], kind: Kind, show_progress: bool
    ) -> EmbedResult:
        """Vectors, with events around each batch, and the rate limiter asked."""
        found = EmbedResult([], [])
        limiter = getattr(self, "rate_limiter", None)  # LlamaIndex has them since 0.14.16
        for start in range(0, len(inputs), self.embed_batch_size):
            if limiter is not None:
                limiter.acquire()
            with self._events(names[start : start + self.embed_batch_size]) as ended:
                made = self._embed(inputs[start : start + self.embed_batch_size], kind, show_progress)
                ended(made)
            found = _joined(found, made)
        return found

    async def _aembed_batches(
        self, inputs: Sequence[Any], names: Sequence[str], kind: Kind, show_progress: bool
    ) -> EmbedResult:
        found = EmbedResult([], [])
        limiter = getattr(self, "rate_limiter", None)
        for start in range(0, len(inputs), self.embed_batch_size):
            if limiter is not None:
                await limiter.async_acquire()
            with self._events(names[start : start + self.embed_batch_size]) as ended:
                part = inputs[start : start + self.embed_batch_size]
                made = await run_in_executor(self._embed, part, kind, show_progress)
                ended(made)
            found = _joined(found, made)
        return found

    @contextmanager
    def _events(self, names: Sequence[str]) -> Iterator[Callable[[EmbedResult], None]]:
        """Start and end of a batch, for both of LlamaIndex's ways to listen; what raises ends it too."""
        model = self.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=model))
        with self.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: model}) as event:

            def ended(made: EmbedResult) -> None:
                good = [(name, vector) for name, vector in zip(names, made.vectors, strict=True) if vector is not None]
                chunks, vectors = [name for name, _ in good], [vector for _, vector in good]
                event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: vectors})
                dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=vectors))

            yield ended

    def _embed(self, inputs: Sequence[Any], kind: Kind, show_progress: bool = False) -> EmbedResult:
        """Vectors from the cache, where there is one, and from the model."""
        embedder = self.embedder
        instruction = self.query_instruction if kind == "query" else None

        def embed(missing: list[Any]) -> Batch:
            return embedder.embed(missing, instruction=instruction, progress=show_progress, on_error="collect")

        def key_of(value: Any) -> str | None:
            return cache_key(value, instruction or embedder.instruction, embedder.recipe.digest, self.policy)

        return through(self.embeddings_cache, inputs, embed, key_of)


def _joined(first: EmbedResult, second: EmbedResult) -> EmbedResult:
    start = len(first.vectors)
    errors = [*first.errors, *(error.at(start + error.index) for error in second.errors)]
    return EmbedResult(first.vectors + second.vectors, errors)


def _settled(made: EmbedResult) -> list[Embedding]:
    """All vectors; raises `BatchError` where some are not there."""
    if made.errors:
        raise BatchError(made.errors, made.vectors)
    return [vector for vector in made.vectors if vector is not None]


def _check_queries(queries: Sequence[str]) -> None:
    if not queries:
        raise InputError(
            "the query has no words: for one by picture, retrieve embed_model.query_bundle({'image': …}), or use "
            "image_to_image_retrieve of a MultiModalVectorStoreIndex's retriever"
        )


def _names(inputs: Sequence[Any]) -> list[str]:
    return [_name(each) for each in inputs]


def _name(value: Any) -> str:
    """An input in a few words, for events: pictures are not copied into them."""
    try:
        return as_item(value).name
    except InputError as error:
        return str(error)
