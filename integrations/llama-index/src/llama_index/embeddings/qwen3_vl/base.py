"""An embedding model that sees what nodes hold."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode, ImageType, MediaResource, MetadataMode, Node, QueryBundle
from llama_index.embeddings.qwen3_vl.cache import cache_key, content_digest
from llama_index.embeddings.qwen3_vl.callers import nodes_being_embedded, nodes_being_hashed
from llama_index.embeddings.qwen3_vl.nodes import holds_data, node_input, readable
from llama_index.embeddings.qwen3_vl.settings import ModelSettings

from qwen3vl.background import in_background
from qwen3vl.errors import InputError
from qwen3vl.inputs import as_item
from qwen3vl.shared import shared_embedder

if TYPE_CHECKING:
    from qwen3vl import Embedder

log = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)
Embedding = list[float]
Kind = Literal["query", "document"]
COLLECTION = "qwen3vl"
"""Of the embeddings cache.  LlamaIndex's own collection has keys that do not tell a query from a document."""
_kept: dict[int, Embedder] = {}
"""Models of objects that came from pickles: a pipeline's workers get a new object for each task."""


class Qwen3VLEmbedding(ModelSettings, MultiModalEmbedding):
    """Qwen3-VL-Embedding: texts, pictures, pages, clips and mixtures of them as vectors of one space.

    As a transformation and in indexes it embeds each node by what it holds: its text, its picture (`ImageNode`,
    `Node.image_resource`, or a reference in its metadata), its clip, or several fused into one vector.

    The model loads on first use, once per process for all objects of equal settings.  One object may be used by
    many threads and event loops at once.  Vectors are lists of `dimensions` Python floats of length 1.

    Errors: `qwen3vl.BatchError` names every input that cannot be used.
    """

    model_config = ConfigDict(
        extra="forbid", protected_namespaces=("pydantic_model_",), arbitrary_types_allowed=True, validate_default=False
    )

    model_name: str = Field(default="Qwen/Qwen3-VL-Embedding-2B", description='A hub id, a local folder, or "tiny".')
    dimensions: int | None = Field(default=None, ge=1, description="Cut the vectors to this many values (Matryoshka).")
    query_instruction: str | None = Field(default=None, description="For queries; None is that of documents.")
    document_instruction: str | None = Field(default=None, description="For documents; None is the model's default.")
    embed_batch_size: int = Field(
        default=2048, gt=0, le=2048, description="Inputs between two events; the engine makes batches by tokens."
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
        settings = self._settings(self.model_name, self.document_instruction)
        if self.dimensions is not None:
            settings["dimensions"] = self.dimensions
        # Asked for by its settings each time, because fields may be changed.
        self._held = found = shared_embedder(**settings)
        if self._unpickled:
            _kept[id(found)] = found
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
        told = []
        for node in nodes:
            try:
                given = node_input(node, self.keys)
                if given.keys() == {"text"}:
                    continue
                told.append(content_digest(as_item(given), self.policy) or sorted(given.items()))
            except (InputError, OSError):
                told.append(node.node_id)  # it fails when it is embedded
        return hashlib.sha256(json.dumps(told).encode()).hexdigest() if told else None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the model: the copy in another process loads its own when it needs it."""
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {"_held": None, "_unpickled": True}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._unpickled = True

    # Texts and queries -------------------------------------------------------------------------------------------

    def get_query_embedding(self, query: str) -> Embedding:
        """The vector of a query in words."""
        return self._told([query], [query], "query")[0]

    async def aget_query_embedding(self, query: str) -> Embedding:
        return (await self._atold([query], [query], "query"))[0]

    def get_multimodal_query_embedding(self, query: Any) -> Embedding:
        """The vector of a query that is a mapping with any of text, image and video."""
        return self._told([query], [_name(query)], "query")[0]

    async def aget_multimodal_query_embedding(self, query: Any) -> Embedding:
        return (await self._atold([query], [_name(query)], "query"))[0]

    def query_bundle(self, query: Any) -> QueryBundle:
        """A query with pictures or clips for any retriever and for `Qwen3VLRerank`: its vector is in the bundle."""
        image = query.get("image") if isinstance(query, dict) else None
        return QueryBundle(
            query_str=query if isinstance(query, str) else str(query.get("text") or ""),
            image_path=image if isinstance(image, str) else None,
            embedding=self.get_multimodal_query_embedding(query),
        )

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> Embedding:
        """The mean of the queries' vectors."""
        _check_queries(queries)
        return super().get_agg_embedding_from_queries(queries, agg_fn)

    async def aget_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> Embedding:
        _check_queries(queries)
        return await super().aget_agg_embedding_from_queries(queries, agg_fn)

    def get_text_embedding(self, text: str) -> Embedding:
        """The vector of a document's text."""
        return self._told([text], [text], "document")[0]

    async def aget_text_embedding(self, text: str) -> Embedding:
        return (await self._atold([text], [text], "document"))[0]

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **_: Any) -> list[Embedding]:
        """The vectors of texts; where an index asks for those of nodes, by what the nodes hold."""
        return self._told(self._seen(texts), texts, "document", show_progress)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **_: Any
    ) -> list[Embedding]:
        return await self._atold(self._seen(texts), texts, "document", show_progress)

    def _seen(self, texts: Sequence[str]) -> list[Any]:
        nodes = nodes_being_embedded(texts)
        return list(texts) if nodes is None else [readable(node, self.keys) for node in nodes]

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

    def get_multimodal_embeddings(self, inputs: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        """The vectors of inputs as `qwen3vl.Embedder.embed` takes them, in their order."""
        return self._told(inputs, [_name(each) for each in inputs], "document", show_progress)

    async def aget_multimodal_embeddings(self, inputs: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        return await self._atold(inputs, [_name(each) for each in inputs], "document", show_progress)

    # Nodes -------------------------------------------------------------------------------------------------------

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Gives each node the vector of what it holds."""
        inputs = [readable(node, self.keys) for node in nodes]
        return _with(nodes, inputs, self.get_multimodal_embeddings(inputs, bool(kwargs.get("show_progress"))))

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        inputs = [readable(node, self.keys) for node in nodes]
        return _with(nodes, inputs, await self.aget_multimodal_embeddings(inputs, bool(kwargs.get("show_progress"))))

    # What LlamaIndex requires beneath ----------------------------------------------------------------------------

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embed([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await in_background(self._embed, [query], "query"))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._embed([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await in_background(self._embed, [text], "document"))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embed(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await in_background(self._embed, texts, "document")

    def _get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return self._embed([{"image": img_file_path}], "document")[0]

    async def _aget_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return (await in_background(self._embed, [{"image": img_file_path}], "document"))[0]

    # The one way to the model ------------------------------------------------------------------------------------

    def _told(
        self, inputs: Sequence[Any], names: Sequence[str], kind: Kind, show_progress: bool = False
    ) -> list[Embedding]:
        """Vectors, with events around each batch, and the rate limiter asked."""
        found: list[Embedding] = []
        limiter = getattr(self, "rate_limiter", None)  # LlamaIndex has them since 0.14.16
        for start in range(0, len(inputs), self.embed_batch_size):
            end = start + self.embed_batch_size
            if limiter is not None:
                limiter.acquire()
            event = self._start()
            vectors = self._embed(inputs[start:end], kind, show_progress)
            self._end(event, names[start:end], vectors)
            found += vectors
        return found

    async def _atold(
        self, inputs: Sequence[Any], names: Sequence[str], kind: Kind, show_progress: bool = False
    ) -> list[Embedding]:
        found: list[Embedding] = []
        limiter = getattr(self, "rate_limiter", None)  # LlamaIndex has them since 0.14.16
        for start in range(0, len(inputs), self.embed_batch_size):
            end = start + self.embed_batch_size
            if limiter is not None:
                await limiter.async_acquire()
            event = self._start()
            vectors = await in_background(self._embed, inputs[start:end], kind, show_progress)
            self._end(event, names[start:end], vectors)
            found += vectors
        return found

    def _start(self) -> str:
        dispatcher.event(EmbeddingStartEvent(model_dict=self.to_payload()))
        payload: dict[str, Any] = {EventPayload.SERIALIZED: self.to_payload()}
        return self.callback_manager.on_event_start(CBEventType.EMBEDDING, payload=payload)

    def _end(self, event: str, names: Sequence[str], vectors: list[Embedding]) -> None:
        dispatcher.event(EmbeddingEndEvent(chunks=list(names), embeddings=vectors))
        payload: dict[str, Any] = {EventPayload.CHUNKS: list(names), EventPayload.EMBEDDINGS: vectors}
        self.callback_manager.on_event_end(CBEventType.EMBEDDING, payload=payload, event_id=event)

    def _embed(self, inputs: Sequence[Any], kind: Kind, show_progress: bool = False) -> list[Embedding]:
        """Vectors from the cache, where there is one, and from the model."""
        embedder = self.embedder
        instruction = self.query_instruction if kind == "query" else None
        if self.embeddings_cache is None:
            return embedder.embed(inputs, instruction=instruction, progress=show_progress).tolist()  # type: ignore[no-any-return]
        recipe = embedder.recipe.digest
        told = instruction or embedder.instruction
        keys = [cache_key(each, told, recipe, self.policy) for each in inputs]
        found = [None if key is None else self.embeddings_cache.get(key, collection=COLLECTION) for key in keys]
        vectors: list[Any] = [None if each is None else each["embedding"] for each in found]
        missing = [place for place, vector in enumerate(vectors) if vector is None]
        made = embedder.embed([inputs[place] for place in missing], instruction=instruction, progress=show_progress)
        for place, vector in zip(missing, made.tolist(), strict=True):
            vectors[place] = vector
            if (key := keys[place]) is not None:
                self.embeddings_cache.put(key, {"embedding": vector}, collection=COLLECTION)
        return vectors


def _with(nodes: Sequence[BaseNode], inputs: Sequence[Any], vectors: Sequence[Embedding]) -> Sequence[BaseNode]:
    for node, given, vector in zip(nodes, inputs, vectors, strict=True):
        node.embedding = vector
        if not node.get_content(metadata_mode=MetadataMode.EMBED):
            _name_kind(node, "clip" if "video" in given else "picture")
    if lost := sum(map(holds_data, nodes)):
        log.warning(
            "%d nodes hold media as data, which most stores do not keep: better give them a path or a URL", lost
        )
    return nodes


def _name_kind(node: BaseNode, kind: str) -> None:
    """A word for a node that has none: indexes drop those.  It is not embedded."""
    node.metadata["kind"] = kind
    if isinstance(node, Node):  # whose metadata do not count without a text
        node.metadata["fused"] = False
        node.text_resource = MediaResource(text=kind)


def _check_queries(queries: Sequence[str]) -> None:
    if not queries:
        raise InputError(
            "the query has no words: for one by picture, retrieve embed_model.query_bundle({'image': …}), or use "
            "image_to_image_retrieve of a MultiModalVectorStoreIndex's retriever"
        )


def _name(value: Any) -> str:
    """An input in a few words, for events: pictures are not copied into them."""
    try:
        return as_item(value).name
    except InputError as error:
        return str(error)
