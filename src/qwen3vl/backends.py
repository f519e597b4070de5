"""What gives `Embedder` and `Reranker` their vectors and scores: an engine in this process, or a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from qwen3vl.errors import ModelError
from qwen3vl.inputs import Input, Item
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput

if TYPE_CHECKING:  # it imports torch
    from qwen3vl.engine import Engine

_TORCH_EXTRA = frozenset({"torch", "tokenizers", "safetensors", "huggingface_hub"})
"""Packages that the extra `qwen3vl[torch]` installs."""


class Backend(Protocol):
    """What both kinds of backends have in common."""

    @property
    def recipe(self) -> Recipe:
        """Everything that decides the vectors or scores."""
        ...

    @property
    def policy(self) -> MediaPolicy:
        """Which files and addresses media references may reach."""
        ...

    @property
    def engine(self) -> Engine:
        """The engine; an `AttributeError` says that a server has it."""
        ...

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        ...

    def close(self) -> None:
        """Release what the backend holds. Running and later calls raise `RuntimeError`; closing again does nothing."""


class EmbeddingBackend(Backend, Protocol):
    """Embeds inputs."""

    def embed(self, inputs: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Embed inputs.

        Args:
            inputs: Taken on the caller's thread, as they are needed.
            instruction: Instruction for inputs that have none of their own, normalized.

        Returns:
            A generator of one output per input, in any order, whose values are vectors of length 1, (dimensions,)
            float32. Closing it stops the work that is left.
        """
        ...

    def aembed(self, inputs: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Embed inputs as `embed` does; waiting occupies no thread."""
        ...


class RerankingBackend(Backend, Protocol):
    """Scores documents against a query."""

    def score(self, query: Item, documents: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Score documents.

        Args:
            query: The query. If it cannot be read, the generator raises an `InputError` that says so.
            documents: Taken on the caller's thread, as they are needed.
            instruction: What makes a document relevant.

        Returns:
            A generator of one output per document, in any order, whose values are probabilities, () float32. Closing
            it stops the work that is left.
        """
        ...

    def ascore(self, query: Item, documents: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Score documents as `score` does; waiting occupies no thread."""
        ...


BackendT = TypeVar("BackendT", bound=Backend)


class BackendOwner(Generic[BackendT]):
    """Owns a backend, and releases it by `close` or as a context manager.

    Attributes:
        backend: Gives the vectors or scores.
    """

    backend: BackendT

    @property
    def recipe(self) -> Recipe:
        """Everything that decides this object's vectors or scores. Scores count as vectors of one value."""
        return self.backend.recipe

    @property
    def instruction(self) -> str:
        """Instruction where neither an input nor a call has one."""
        return self.recipe.instruction

    @property
    def policy(self) -> MediaPolicy:
        """Which files and addresses media references may reach."""
        return self.backend.policy

    @property
    def engine(self) -> Engine:
        """The model on its devices.

        Raises:
            AttributeError: A server has the model.
        """
        return self.backend.engine

    def close(self) -> None:
        """Release the model's memory, unless other objects use the same weights, or the connections to its server.

        The object cannot be used again: calls that are running raise `RuntimeError`. Closing again does nothing.
        """
        self.backend.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.backend.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def torch_required(model: object) -> Iterator[None]:
    """Return a context for imports of what runs models in this process, for which torch may not be installed.

    Args:
        model: The model that is to be loaded, for the error message.

    Yields:
        Nothing.

    Raises:
        ModelError: torch, or a package that is installed with it, is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _TORCH_EXTRA:
            raise
        raise ModelError(
            f"{model} cannot be run in this process, because {error.name} is not installed: install qwen3vl[torch], "
            'or give the URL of a server (`qwen3vl serve`) in place of the model: "http://localhost:8000"'
        ) from error


@contextmanager
def tokenizer_required() -> Iterator[None]:
    """Return a context for imports of what makes prompts for vLLM, for which `tokenizers` may not be installed.

    Yields:
        Nothing.

    Raises:
        ModelError: It is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "tokenizers":
            raise
        raise ModelError(
            "prompts for vLLM are tokenized here, and tokenizers is not installed: install qwen3vl[vllm]"
        ) from error
