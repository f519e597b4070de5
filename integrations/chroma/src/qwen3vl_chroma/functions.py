"""What Chroma calls: an embedding function that a collection remembers, and a loader of media behind URIs."""

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

if TYPE_CHECKING:  # torch comes with a model
    from qwen3vl import Embedder


@register_embedding_function
class Qwen3VLEmbeddingFunction(EmbeddingFunction[Embeddable]):
    """Texts (str) and pictures (arrays of height x width x 3, uint8) to vectors; the model loads on first use.

    model and the settings are those of `qwen3vl.Embedder`, and must be JSON; query_instruction is for queries.
    device and dtype are this machine's affair: they are not kept with the collection.
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
        self.model = model
        self.query_instruction = query_instruction
        self.settings = json.loads(json.dumps(settings))
        self._local = {"device": device, "dtype": dtype}

    @classmethod
    def of(cls, recipe: Recipe, *, query_instruction: str | None = None) -> Qwen3VLEmbeddingFunction:
        """The function that makes queries for a collection of this recipe."""
        return cls(recipe.model, query_instruction=query_instruction, **recipe.settings)

    @property
    def embedder(self) -> Embedder:
        # Chroma creates a new function whenever it reads a collection's configuration, and drops the last one.
        return MODELS.embedder(keep=True, model=self.model, **self._local, **self.settings)

    def __call__(self, input: Embeddable) -> Embeddings:  # noqa: A002 (Chroma's name)
        return self._embed(input, None)

    def embed_query(self, input: Embeddable) -> Embeddings:  # noqa: A002 (Chroma's name)
        return self._embed(input, self.query_instruction)

    def _embed(self, inputs: Embeddable, instruction: str | None) -> Embeddings:
        items = [each if isinstance(each, str) else {"image": np.asarray(each)} for each in inputs]
        return cast("Embeddings", list(self.embedder.embed(items, instruction=instruction)))

    @staticmethod
    def name() -> str:
        return "qwen3vl"

    def get_config(self) -> dict[str, Any]:
        return {"model": self.model, "query_instruction": self.query_instruction, **self.settings}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Qwen3VLEmbeddingFunction:
        return Qwen3VLEmbeddingFunction(**config)

    def default_space(self) -> Space:
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        return ["cosine"]

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Only the instruction of queries may change: everything else made the stored vectors."""
        fixed = (old_config.keys() | new_config.keys()) - {"query_instruction"}
        changed = sorted(key for key in fixed if old_config.get(key) != new_config.get(key))
        if changed:
            raise ValueError(f"the collection's vectors were made with another {', '.join(changed)}: make a new one")

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        if not isinstance(config.get("model"), str):
            raise ValueError(f"the configuration names no model: {config}")


class MediaLoader(DataLoader[Loadable]):
    """Opens paths, file:// and http(s) URLs and data URIs under a media policy.

    A picture or a page becomes (height, width, 3) uint8; of a clip it is the middle frame; None stays None.
    """

    def __init__(self, policy: MediaPolicy | None = None, *, threads: int = 4) -> None:
        self.policy = policy or MediaPolicy()
        self.threads = threads

    def __call__(self, uris: Sequence[str | None]) -> Loadable:
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
        return np.asarray(read_image_header(as_image(uri), self.policy).load())
