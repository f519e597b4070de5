"""What Chroma calls: an embedding function that is stored with a collection, and a loader of media by URI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from chromadb.api.types import DataLoader, Embeddable, EmbeddingFunction, Embeddings, Loadable, Space
from chromadb.utils.embedding_functions import register_embedding_function
from numpy.typing import NDArray

from qwen3vl import MediaPolicy
from qwen3vl.adapters.registry import MODELS
from qwen3vl.inputs import as_image, as_video, is_video
from qwen3vl.recipe import Recipe

if TYPE_CHECKING:
    from qwen3vl import Embedder

_QUERY_ONLY_SETTINGS = {"query_instruction"}
"""Settings that do not change the vectors of stored documents."""


@register_embedding_function
class Qwen3VLEmbeddingFunction(EmbeddingFunction[Embeddable]):
    """Embeds texts (str) and images ((height, width, 3) uint8 arrays) for Chroma. The model is loaded on first use.

    Args:
        model: As for `qwen3vl.Embedder`. The key for a server comes from the environment variable QWEN3VL_API_KEY.
        query_instruction: Instruction for queries, if it differs from that of documents.
        device: As for `qwen3vl.Embedder`. Device and dtype are not stored with a collection.
        dtype: As for `qwen3vl.Embedder`.
        **settings: Further arguments of `qwen3vl.Embedder`, as JSON values.

    Raises:
        ValueError: There is an `api_key` among the settings, which are stored with collections.

    Example:
        ```python
        client.create_collection("notes", embedding_function=Qwen3VLEmbeddingFunction("tiny"))
        ```
    """

    def __init__(
        self,
        model: str = "Qwen/Qwen3-VL-Embedding-2B",
        *,
        query_instruction: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        **settings: Any,
    ) -> None:
        if "api_key" in settings:
            raise ValueError(
                "api_key would be stored with each collection, for all who can read it; set QWEN3VL_API_KEY instead"
            )
        self.model = model
        self.query_instruction = query_instruction
        self.settings = json.loads(json.dumps(settings))
        self._device_settings = {"device": device, "dtype": dtype}

    @classmethod
    def of(cls, recipe: Recipe, *, query_instruction: str | None = None) -> Qwen3VLEmbeddingFunction:
        """Return the function that embeds queries for a collection.

        Args:
            recipe: The collection's recipe.
            query_instruction: Instruction for queries, if it differs from that of documents.

        Returns:
            A function whose vectors may be compared with the collection's.
        """
        return cls(recipe.model, query_instruction=query_instruction, **recipe.settings)

    @property
    def embedder(self) -> Embedder:
        """The model, loaded on first use."""
        # Chroma creates a new function whenever it reads a collection's configuration, and drops the former one.
        return MODELS.embedder(keep=True, model=self.model, **self._device_settings, **self.settings)

    def __call__(self, input: Embeddable) -> Embeddings:  # noqa: A002 (Chroma's name)
        """Embed documents.

        Args:
            input: Texts and images.

        Returns:
            (dimensions,) float32 arrays.
        """
        return self._embed(input, None)

    def embed_query(self, input: Embeddable) -> Embeddings:  # noqa: A002 (Chroma's name)
        """Embed queries, with `query_instruction`.

        Args:
            input: Texts and images.

        Returns:
            (dimensions,) float32 arrays.
        """
        return self._embed(input, self.query_instruction)

    def _embed(self, inputs: Embeddable, instruction: str | None) -> Embeddings:
        items = [value if isinstance(value, str) else {"image": np.asarray(value)} for value in inputs]
        return cast("Embeddings", list(self.embedder.embed(items, instruction=instruction)))

    @staticmethod
    def name() -> str:
        """Return the name under which Chroma finds this class again."""
        return "qwen3vl"

    def get_config(self) -> dict[str, Any]:
        """Return the settings that Chroma stores with a collection."""
        return {"model": self.model, "query_instruction": self.query_instruction, **self.settings}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Qwen3VLEmbeddingFunction:
        """Create the function from what `get_config` returned.

        Args:
            config: The stored settings.

        Returns:
            An equal function.
        """
        return Qwen3VLEmbeddingFunction(**config)

    def default_space(self) -> Space:
        """Return the space of new collections."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """Return the spaces in which the vectors may be compared."""
        return ["cosine"]

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Check that new settings fit the vectors of a collection: only the instruction of queries may change.

        Args:
            old_config: The stored settings.
            new_config: The new settings.

        Raises:
            ValueError: Another setting differs.
        """
        fixed = (old_config.keys() | new_config.keys()) - _QUERY_ONLY_SETTINGS
        changed = sorted(key for key in fixed if old_config.get(key) != new_config.get(key))
        if changed:
            raise ValueError(
                f"the collection's vectors were made with another {', '.join(changed)}: create a new collection"
            )

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Check settings before they are stored.

        Args:
            config: The settings.

        Raises:
            ValueError: They name no model.
        """
        if not isinstance(config.get("model"), str):
            raise ValueError(f"the configuration names no model: {config}")


class MediaLoader(DataLoader[Loadable]):
    """Opens paths, file:// and http(s) URLs and data URIs of images, PDF pages and videos for Chroma.

    Args:
        policy: Which files and addresses may be opened; None is `MediaPolicy()`.
        threads: Number of media that are opened at the same time.

    Example:
        ```python
        collection = client.get_collection("library", data_loader=MediaLoader())
        ```
    """

    def __init__(self, policy: MediaPolicy | None = None, *, threads: int = 4) -> None:
        self.policy = policy or MediaPolicy()
        self.threads = threads

    def __call__(self, uris: Sequence[str | None]) -> Loadable:
        """Open media.

        Args:
            uris: References; None stays None.

        Returns:
            (height, width, 3) uint8 arrays: the image, the page, or the middle frame of the video.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            return cast("Loadable", list(pool.map(self._load, uris)))

    def _load(self, uri: str | None) -> NDArray[np.uint8] | None:
        from qwen3vl.media.images import read_image_header
        from qwen3vl.media.videos import read_video_header

        if uri is None:
            return None
        if is_video(uri):
            header = read_video_header(as_video(uri), self.policy)
            frames = header.load([(header.first_frame + header.last_frame) // 2])
            return np.asarray(frames[0])
        return np.asarray(read_image_header(as_image(uri), self.policy).load(None))
