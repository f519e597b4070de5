"""Embeddings of texts, images, pages, videos and mixtures of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack
from weakref import WeakKeyDictionary

from langchain_core.embeddings import Embeddings
from langchain_core.utils import from_env
from pydantic import AliasChoices, Field, field_validator

from langchain_qwen3_vl.captions import captions_of_caller
from langchain_qwen3_vl.inputs import Content, as_list, to_inputs
from langchain_qwen3_vl.precomputed import is_precomputed, take_vectors
from langchain_qwen3_vl.settings import LangChainModelArguments, LangChainModelSettings
from qwen3vl.adapters.registry import MODELS
from qwen3vl.errors import BatchError, query_error

if TYPE_CHECKING:
    from qwen3vl import Batch, Embedder

log = logging.getLogger(__name__)
PROBE = ["dummy_text"]
"""What `QdrantVectorStore` embeds whenever it is created, only to learn the number of dimensions."""
_probe_vectors: WeakKeyDictionary[Embedder, list[float]] = WeakKeyDictionary()
"""Vectors of `PROBE`, as long as their models are loaded."""
_WHAT_EMBEDS_MEDIA = (
    "langchain_qwen3_vl.add_documents(store, documents), a store class with the mix-in Qwen3VLVectorStore (for "
    "from_documents, update_document and index), or Qwen3VLEmbeddingsFilter in place of a filter"
)


class EmbeddingsArguments(LangChainModelArguments, total=False):
    """Keyword arguments of `Qwen3VLEmbeddings`, for type checkers."""

    dimensions: int | None
    document_instruction: str | None
    query_instruction: str | None
    encode_kwargs: dict[str, Any]


class Qwen3VLEmbeddings(LangChainModelSettings, Embeddings):
    """Qwen3-VL-Embedding: texts, images, pages, videos and mixtures of them as vectors of one space.

    A str is a text, unless it is the base64 of an image, as `Chroma.add_images` writes it: that is embedded as an
    image. LangChain passes queries on unchanged, for example in `retriever.invoke`, so a query may also be a mapping
    with any of text, image and video, a message, a list of content blocks, or a document.

    The model loads on first use, once per process for all objects with equal settings. One object may be used by
    many threads and event loops at once. The fields of `ModelSettings` (device, dtype, policy, media_keys, ...) are
    accepted too.

    Args:
        **fields: The attributes below, those of `ModelSettings`, and `model_name`.

    Attributes:
        model: A hub id, a local folder, `"tiny"`, or the URL of a server. The default is the environment variable
            QWEN3VL_EMBEDDING_MODEL, or the 2B model. `model_name` is accepted as another name of this field.
        dimensions: Truncate vectors to this many values (Matryoshka representation); None keeps all.
        document_instruction: Instruction for documents; None is the model's default.
        query_instruction: Instruction for queries; None is that of documents, as in the official scripts.
        encode_kwargs: Accepts `normalize_embeddings=True` from code written for other embeddings, and nothing else.
            Vectors always have length 1.

    Example:
        ```python
        from langchain_qwen3_vl import Qwen3VLEmbeddings
        from PIL import Image
        from qwen3vl import MediaPolicy

        Image.new("RGB", (96, 96), "red").save("red.png")
        embeddings = Qwen3VLEmbeddings(model="tiny", policy=MediaPolicy(folders=(".",)))
        vectors = embeddings.embed_documents(["a red circle", "a blue star"])
        query = embeddings.embed_query({"text": "a circle of this colour", "image": "red.png"})
        print(len(vectors), len(query))
        ```
    """

    model: str = Field(
        default_factory=from_env("QWEN3VL_EMBEDDING_MODEL", default="Qwen/Qwen3-VL-Embedding-2B"),
        validation_alias=AliasChoices("model", "model_name"),
        description='A hub id, a local folder, "tiny", or the URL of a server. "model_name" is another name of it.',
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="Truncate vectors to this many values (Matryoshka); None keeps all."
    )
    document_instruction: str | None = Field(
        default=None, description="Instruction for documents; None is the model's default."
    )
    query_instruction: str | None = Field(
        default=None, description="Instruction for queries; None is that of documents."
    )
    encode_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="normalize_embeddings=True, or nothing. Vectors always have length 1."
    )

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[EmbeddingsArguments]) -> None: ...

    @field_validator("encode_kwargs")
    @classmethod
    def _check_encode_kwargs(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value not in ({}, {"normalize_embeddings": True}):
            raise ValueError(
                "encode_kwargs may hold only normalize_embeddings=True, because vectors always have length 1; "
                "instructions and show_progress are fields, and model_kwargs accepts batch_tokens, fps and max_frames"
            )
        return value

    @property
    def embedder(self) -> Embedder:
        """The core's `Embedder`, for `qwen3vl.ingest` and `qwen3vl.Retriever`. It is loaded if it is not yet.

        It embeds with `document_instruction`: pass `instruction=embeddings.query_instruction` to `Retriever`.
        """
        return self._model.hold(MODELS.embedder(**self._embedder_arguments()))

    def embed_documents(self, texts: Sequence[Content]) -> list[list[float]]:
        """Embed documents.

        If each is a `PrecomputedText` that still has its vector, the vectors are returned and dropped from the texts.
        Otherwise all are embedded, a `PrecomputedText` as the text that it is.

        Args:
            texts: Texts, or anything else that can be embedded.

        Returns:
            A vector of `dimensions` floats for each document, in their order.

        Raises:
            BatchError: Documents cannot be embedded. It has the vectors of the others.
        """
        values = as_list(texts)
        if is_precomputed(values):
            return take_vectors(values)
        if values and isinstance(values[0], str) and values == PROBE:  # an array has no truth value
            return [list(self._probe_vector())]
        self._warn_of_captions(values)
        return self._embed(values, None)

    def embed_query(self, text: Content) -> list[float]:
        """Embed a query.

        Args:
            text: A text, or anything else that can be embedded.

        Returns:
            A vector of `dimensions` floats.

        Raises:
            InputError: The query cannot be used.
        """
        with _query_errors():
            return self._embed([text], self.query_instruction)[0]

    def embed_image(self, uris: Sequence[str]) -> list[list[float]]:
        """Embed images; Chroma calls this method for images.

        Args:
            uris: Paths, URLs and data URIs that the policy allows; bytes and PIL images are accepted too.

        Returns:
            A vector of `dimensions` floats for each image, in their order.

        Raises:
            BatchError: Images cannot be embedded. It has the vectors of the others.
        """
        return self._embed(_image_inputs(uris), None)

    def embed_multimodal(self, inputs: Sequence[Content]) -> list[list[float]]:
        """Embed mappings with any of text, image and video, each one value or a list, as one vector each.

        In contrast to `embed_documents`, it does not warn of texts of documents with media, and embeds every
        `PrecomputedText` as a text.

        Args:
            inputs: Such mappings, or anything else that can be embedded.

        Returns:
            A vector of `dimensions` floats for each input, in their order.

        Raises:
            BatchError: Inputs cannot be embedded. It has the vectors of the others.
        """
        return self._embed(as_list(inputs), None)

    def collect(self, values: Sequence[Content], instruction: str | None = None) -> Batch:
        """Embed values without raising an error for those that fail.

        Args:
            values: Anything that can be embedded; also a single value.
            instruction: Instruction for all values; None is that of documents.

        Returns:
            Vectors, (n, dimensions) float32, with NaN for failed values, and their errors by index.
        """
        inputs = to_inputs(as_list(values), self.media_keys)
        return self.embedder.embed(inputs, instruction=instruction, progress=self.show_progress, on_error="collect")

    async def acollect(self, values: Sequence[Content], instruction: str | None = None) -> Batch:
        """Embed values as `collect` does, without blocking the event loop. Waiting for the model occupies no thread.

        Args:
            values: As for `collect`.
            instruction: As for `collect`.

        Returns:
            As `collect` returns.
        """
        inputs = to_inputs(as_list(values), self.media_keys)
        embedder = self._model.hold(await MODELS.aembedder(**self._embedder_arguments()))
        return await embedder.aembed(inputs, instruction=instruction, progress=self.show_progress, on_error="collect")

    async def aembed_documents(self, texts: Sequence[Content]) -> list[list[float]]:
        """Embed documents as `embed_documents` does, without blocking the event loop.

        Args:
            texts: As for `embed_documents`.

        Returns:
            As `embed_documents` returns.
        """
        values = as_list(texts)
        if is_precomputed(values):
            return take_vectors(values)
        self._warn_of_captions(values)
        return await self._aembed(values, None)

    async def aembed_query(self, text: Content) -> list[float]:
        """Embed a query as `embed_query` does, without blocking the event loop.

        Args:
            text: As for `embed_query`.

        Returns:
            As `embed_query` returns.
        """
        with _query_errors():
            return (await self._aembed([text], self.query_instruction))[0]

    async def aembed_image(self, uris: Sequence[str]) -> list[list[float]]:
        """Embed images as `embed_image` does, without blocking the event loop.

        Args:
            uris: As for `embed_image`.

        Returns:
            As `embed_image` returns.
        """
        return await self._aembed(_image_inputs(uris), None)

    async def aembed_multimodal(self, inputs: Sequence[Content]) -> list[list[float]]:
        """Embed inputs as `embed_multimodal` does, without blocking the event loop.

        Args:
            inputs: As for `embed_multimodal`.

        Returns:
            As `embed_multimodal` returns.
        """
        return await self._aembed(as_list(inputs), None)

    def _embedder_arguments(self) -> dict[str, Any]:
        arguments = self.engine_arguments(self.model, self.document_instruction)
        return arguments if self.dimensions is None else {**arguments, "dimensions": self.dimensions}

    def _embed(self, values: Sequence[Content], instruction: str | None) -> list[list[float]]:
        return _vectors_or_raise(self.collect(values, instruction), values) if values else []

    async def _aembed(self, values: Sequence[Content], instruction: str | None) -> list[list[float]]:
        return _vectors_or_raise(await self.acollect(values, instruction), values) if values else []

    def _probe_vector(self) -> list[float]:
        """Return the vector of `PROBE`, computed once for each loaded model."""
        embedder = self.embedder
        if embedder not in _probe_vectors:
            _probe_vectors[embedder] = self._embed(PROBE, None)[0]
        return _probe_vectors[embedder]

    def _warn_of_captions(self, values: Sequence[Content]) -> None:
        """Warn once if a calling function has documents with media in its variables, and passed only their texts."""
        captions = captions_of_caller(values, self.media_keys)
        if captions is not None:
            self._once.warning(
                log,
                "captions",
                "%s passed only the texts of %d documents that have images or videos in their metadata: their vectors "
                "are those of the texts alone. Use %s instead. This warning is given once.",
                captions.function,
                captions.num_documents,
                _WHAT_EMBEDS_MEDIA,
            )


def _image_inputs(uris: Sequence[str]) -> list[Any]:
    return [{"image": uri} for uri in ([uris] if isinstance(uris, str) else uris)]


def _vectors_or_raise(batch: Batch, values: Sequence[Content]) -> list[list[float]]:
    if batch.errors:
        error = BatchError(batch.errors, batch.values)
        if any(isinstance(value, str) and not value for value in values):
            error.add_note(
                "LangChain's vector stores and filters embed only page_content. For documents that have an image "
                f"or video in their metadata, use {_WHAT_EMBEDS_MEDIA}."
            )
        raise error
    return batch.values.tolist()  # type: ignore[no-any-return]


@contextmanager
def _query_errors() -> Iterator[None]:
    """Turn the error of a batch that is a single query into an error of the query."""
    try:
        yield
    except BatchError as error:
        (item_error,) = error.errors
        raise query_error(item_error.source, item_error.reason) from error
