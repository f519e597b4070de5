"""Embeddings whose texts may be pictures, pages, clips and mixtures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from langchain_core.embeddings import Embeddings
from langchain_core.utils import from_env
from pydantic import AliasChoices, Field, PrivateAttr, field_validator

from langchain_qwen3_vl.content import Content, as_input
from langchain_qwen3_vl.settings import ModelSettings
from qwen3vl.background import in_background
from qwen3vl.errors import BatchError, InputError
from qwen3vl.shared import shared_embedder

if TYPE_CHECKING:
    from qwen3vl import Embedder

PROBE = ["dummy_text"]
"""What `QdrantVectorStore` embeds whenever it is made, only to count the values."""


class Ready(str):
    """A text whose vector is there already: how `add_documents` sends pictures through stores that know only texts.

    Copies and pickles of it are plain texts.
    """

    __slots__ = ("taken", "vector")

    def __new__(cls, text: str, vector: list[float]) -> Self:
        made = super().__new__(cls, text)
        made.vector = vector
        made.taken = False
        return made

    vector: list[float]
    taken: bool

    def take(self) -> list[float]:
        self.taken = True
        return self.vector

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class Qwen3VLEmbeddings(ModelSettings, Embeddings):
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
    """Further keys of every input that is a document or a query: fps, max_frames."""

    _held: Any = PrivateAttr(default=None)
    _probed: Any = PrivateAttr(default=None)

    @field_validator("encode_kwargs")
    @classmethod
    def _encodable(cls, value: dict[str, Any]) -> dict[str, Any]:
        if odd := sorted(value.keys() - {"fps", "max_frames"}):
            raise ValueError(
                f"unknown: {', '.join(odd)}; it may hold fps and max_frames (vectors are of length 1 always, and "
                "batches are made by tokens: model_kwargs={'batch_tokens': …})"
            )
        return value

    @property
    def embedder(self) -> Embedder:
        """The core's object, for `qwen3vl.ingest` and `Retriever`; loads the model."""
        settings = self._settings(self.model, self.document_instruction)
        if self.dimensions is not None:
            settings["dimensions"] = self.dimensions
        # Asked for by its settings each time, because fields may be changed.
        self._held = found = shared_embedder(**settings)
        return found

    def embed_documents(self, texts: Sequence[Content]) -> list[list[float]]:
        """Vectors of documents, one of `dimensions` floats each, in their order."""
        if texts == PROBE:
            return [list(self._probe())]
        if texts and all(isinstance(text, Ready) for text in texts):
            return [text.take() for text in texts if isinstance(text, Ready)]
        return self._embed(texts, None)

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
        return self._embed(inputs, None)

    async def aembed_documents(self, texts: Sequence[Content]) -> list[list[float]]:
        """`embed_documents` without blocking the event loop."""
        return await in_background(self.embed_documents, texts)

    async def aembed_query(self, text: Content) -> list[float]:
        """`embed_query` without blocking the event loop."""
        return await in_background(self.embed_query, text)

    async def aembed_image(self, uris: Sequence[str]) -> list[list[float]]:
        """`embed_image` without blocking the event loop."""
        return await in_background(self.embed_image, uris)

    async def aembed_multimodal(self, inputs: Sequence[Content]) -> list[list[float]]:
        """`embed_multimodal` without blocking the event loop."""
        return await in_background(self.embed_multimodal, inputs)

    def _embed(self, values: Iterable[Content], instruction: str | None) -> list[list[float]]:
        inputs = [self._input(value) for value in values]
        if not inputs:
            return []
        try:
            vectors = self.embedder.embed(inputs, instruction=instruction, progress=self.show_progress)
        except BatchError as error:
            if "" in inputs:
                error.add_note(
                    "Vector stores pass on page_content only: documents whose picture or clip is in their metadata "
                    "are stored by langchain_qwen3_vl.add_documents(store, documents)."
                )
            raise
        return vectors.tolist()  # type: ignore[no-any-return]

    def _input(self, value: Content) -> Any:
        taken = as_input(value, self.keys)
        if not self.encode_kwargs:
            return taken
        return {**self.encode_kwargs, **(taken if isinstance(taken, dict) else {"text": taken})}

    def _probe(self) -> list[float]:
        embedder = self.embedder
        if self._probed is None or self._probed[0] is not embedder:
            self._probed = (embedder, self._embed(PROBE, None)[0])
        return self._probed[1]  # type: ignore[no-any-return]
