"""Embeddings whose texts may be pictures, pages, clips and mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from langchain_core.embeddings import Embeddings
from langchain_core.utils import from_env
from pydantic import AliasChoices, Field, PrivateAttr, field_validator

from langchain_qwen3_vl.content import Content, as_list, input_or_error
from langchain_qwen3_vl.settings import LangChainModelSettings
from qwen3vl.adapters.registry import MODELS
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import BatchError, InputError

if TYPE_CHECKING:
    from qwen3vl import Batch, Embedder

PROBE = ["dummy_text"]
"""What `QdrantVectorStore` embeds whenever it is made, only to count the values."""


class PrecomputedText(str):
    """A text whose vector is there already: how `add_documents` sends pictures through stores that know only texts.

    Copies and pickles of it are plain texts.
    """

    __slots__ = ("taken", "vector")
    vector: list[float] | None
    taken: bool

    def __new__(cls, text: str, vector: list[float]) -> Self:
        made = super().__new__(cls, text)
        made.vector = vector
        made.taken = False
        return made

    def take(self) -> list[float]:
        """The vector, once: who keeps the text keeps nothing else."""
        vector, self.vector, self.taken = self.vector, None, True
        return vector or []

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class Qwen3VLEmbeddings(LangChainModelSettings, Embeddings):
    """Qwen3-VL-Embedding: texts, pictures, pages, clips and mixtures of them as vectors of one space.

    A text is a str.  Wherever LangChain hands things through unseen, as `retriever.invoke` does with queries, a
    mapping with any of text, image and video, a message, a list of content blocks or a document is taken as well.

    The model loads on first use, once per process for all objects of equal settings.  One object may be used by
    many threads and event loops at once.

    Errors: `qwen3vl.InputError` for a query, `qwen3vl.BatchError` for documents, when all others are done.
    """

    model: str = Field(
        default_factory=from_env("QWEN3VL_EMBEDDING_MODEL", default="Qwen/Qwen3-VL-Embedding-2B"),
        validation_alias=AliasChoices("model", "model_name"),
    )
    """A hub id, a local folder, or "tiny"; by default what the environment's QWEN3VL_EMBEDDING_MODEL says."""
    dimensions: int | None = Field(default=None, ge=1)
    """Cut the vectors to this many values (Matryoshka); None keeps all."""
    document_instruction: str | None = None
    """For documents; None is the model's default."""
    query_instruction: str | None = None
    """For queries; None is that of documents, as in the official scripts."""
    encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    """For code that comes from other embeddings: `normalize_embeddings=True`, what happens anyway, and nothing else."""

    _held: Any = PrivateAttr(default=None)
    _probed: Any = PrivateAttr(default=None)

    @field_validator("encode_kwargs")
    @classmethod
    def _encodable(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value not in ({}, {"normalize_embeddings": True}):
            raise ValueError(
                "it may hold normalize_embeddings=True: vectors are of length 1 always; instructions and progress are "
                "fields, and model_kwargs holds batch_tokens, fps and max_frames"
            )
        return value

    @property
    def embedder(self) -> Embedder:
        """The core's object, for `qwen3vl.ingest` and `Retriever`; loads the model."""
        settings = self.engine_arguments(self.model, self.document_instruction)
        if self.dimensions is not None:
            settings["dimensions"] = self.dimensions
        # Asked for by its settings each time, because fields may be changed.
        self._held = found = MODELS.embedder(**settings)
        return found

    def embed_documents(self, texts: Sequence[Content]) -> list[list[float]]:
        """Vectors of documents, one of `dimensions` floats each, in their order."""
        given = as_list(texts)
        if given and all(isinstance(text, PrecomputedText) and text.vector is not None for text in given):
            return [text.take() for text in given]
        return [list(self._probe())] if given == PROBE else self._embed(given, None)

    def embed_query(self, text: Content) -> list[float]:
        """The vector of a query."""
        try:
            return self._embed([text], self.query_instruction)[0]
        except BatchError as error:
            (first,) = error.errors
            raise InputError(f"the query ({first.source}): {first.reason}") from error

    def embed_image(self, uris: Sequence[str]) -> list[list[float]]:
        """Vectors of pictures: paths, URLs and data URIs under the policy; bytes and PIL images too."""
        return self._embed([{"image": uri} for uri in ([uris] if isinstance(uris, str) else uris)], None)

    def embed_multimodal(self, inputs: Sequence[Content]) -> list[list[float]]:
        """Vectors of mappings with any of text, image and video (each one or a list), fused into one vector each."""
        return self._embed(as_list(inputs), None)

    def collect(self, values: Sequence[Content], instruction: str | None = None) -> Batch:
        """Vectors of documents, (n, dimensions) float32, with errors by their places beside them."""
        inputs = [input_or_error(value, self.media_keys) for value in values]
        return self.embedder.embed(inputs, instruction=instruction, progress=self.show_progress, on_error="collect")

    async def aembed_documents(self, texts: Sequence[Content]) -> list[list[float]]:
        """`embed_documents` without blocking the event loop."""
        return await run_in_executor(self.embed_documents, texts)

    async def aembed_query(self, text: Content) -> list[float]:
        """`embed_query` without blocking the event loop."""
        return await run_in_executor(self.embed_query, text)

    async def aembed_image(self, uris: Sequence[str]) -> list[list[float]]:
        """`embed_image` without blocking the event loop."""
        return await run_in_executor(self.embed_image, uris)

    async def aembed_multimodal(self, inputs: Sequence[Content]) -> list[list[float]]:
        """`embed_multimodal` without blocking the event loop."""
        return await run_in_executor(self.embed_multimodal, inputs)

    def _embed(self, values: Sequence[Content], instruction: str | None) -> list[list[float]]:
        if not values:
            return []
        found = self.collect(values, instruction)
        if found.errors:
            error = BatchError(found.errors, found.values)
            if "" in values:
                error.add_note(
                    "Vector stores pass on page_content only: documents whose picture or clip is in their metadata "
                    "are stored by langchain_qwen3_vl.add_documents(store, documents)."
                )
            raise error
        return found.values.tolist()  # type: ignore[no-any-return]

    def _probe(self) -> list[float]:
        recipe = self.embedder.recipe
        if self._probed is None or self._probed[0] != recipe:
            self._probed = (recipe, self._embed(PROBE, None)[0])
        return self._probed[1]  # type: ignore[no-any-return]
