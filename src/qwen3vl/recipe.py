"""The recipe: everything that decides a vector. It is stored with a collection and checked when that is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.errors import RecipeError

_ORIGIN_FIELDS = ("model", "revision", "adapter")
"""Where the weights came from; the same weights from elsewhere make the same vectors."""
_DIGEST_LENGTH = 32
"""Hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a vector. Vectors are comparable only if their recipes have equal digests.

    The names of the fields are stored, and must not change.

    Attributes:
        model: Hub id or folder of the model.
        revision: Commit of the model on the hub; None for a folder.
        weights: Fingerprint of the checkpoint, and of the adapter that is merged into it.
        prompt_version: Version of the prompt templates.
        instruction: Default instruction.
        max_length: Maximum number of tokens of a prompt.
        min_pixels: Minimum number of pixels of an image.
        max_pixels: Maximum number of pixels of an image.
        total_pixels: Maximum number of pixels of all frames of a video together.
        fps: Frames per second that are sampled from a video file.
        max_frames: Maximum number of frames that are sampled from a video.
        exif: Whether images are rotated by their EXIF orientation.
        dimensions: Number of values of a vector.
        normalised: Whether vectors have length 1.
        adapter: Hub id with its commit, or folder, of the LoRA adapter that is merged into the model; None without.
    """

    model: str
    revision: str | None
    weights: str
    prompt_version: int
    instruction: str
    max_length: int
    min_pixels: int
    max_pixels: int
    total_pixels: int
    fps: float
    max_frames: int
    exif: bool
    dimensions: int
    normalised: bool = True
    adapter: str | None = None

    def __post_init__(self) -> None:
        # 1 and 1.0 are equal settings but different JSON, and the digest is made from JSON.
        object.__setattr__(self, "fps", float(self.fps))
        object.__setattr__(self, "exif", bool(self.exif))
        for name in ("max_length", "min_pixels", "max_pixels", "total_pixels", "max_frames", "dimensions"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def digest(self) -> str:
        """Digest of all fields but `model`, `revision` and `adapter`: 32 hexadecimal digits."""
        return _digest(self)

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments, besides the model, with which an `Embedder` has this recipe."""
        not_settings = {"model", "weights", "prompt_version", "normalised"}
        return {name: value for name, value in self.to_dict().items() if name not in not_settings}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as they are stored: `adapter` only if there is one, as earlier versions expect."""
        stored = asdict(self)
        if self.adapter is None:
            del stored["adapter"]
        return stored

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Recipe:
        """Read what `to_dict` returned.

        Args:
            stored: The fields by name.

        Returns:
            The recipe.

        Raises:
            RecipeError: Fields are missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(stored) | {"adapter"} != names:
            differing = sorted((set(stored) | {"adapter"}) ^ names)
            raise RecipeError(
                f"the stored recipe is of another version: it differs in {', '.join(differing)}. Use the version of "
                "qwen3vl that wrote it, or index the documents again."
            )
        return cls(**stored)

    @renamed_arguments(place="collection")
    def check(self, stored: Recipe, collection: str) -> None:
        """Check that vectors of this recipe may be compared with those of a collection.

        Args:
            stored: The collection's recipe.
            collection: The collection's name, for the error message.

        Raises:
            RecipeError: The recipes differ; the message names each field and both values.
        """
        if self.digest == stored.digest:
            return
        raise RecipeError(
            f"{collection} was written by another recipe: {self.describe_differences(stored)}. Open it with the same "
            "settings, or use another collection."
        )

    def describe_differences(self, other: Recipe) -> str:
        """Describe in which of the fields that decide vectors another recipe differs.

        Args:
            other: The other recipe.

        Returns:
            Each field with both values; empty if the digests are equal.
        """
        own_fields, other_fields = self.to_dict(), other.to_dict()
        differing = [
            name for name in own_fields if name not in _ORIGIN_FIELDS and own_fields[name] != other_fields[name]
        ]
        differences = "; ".join(
            f"{name} is {other_fields[name]!r} there and {own_fields[name]!r} here" for name in differing
        )
        if "weights" in differing:
            differences += f" (model {other._origin} there, {self._origin} here)"
        return differences

    @property
    def _origin(self) -> str:
        return repr(self.model) if self.adapter is None else f"{self.model!r} with the adapter {self.adapter!r}"


@lru_cache(maxsize=64)
def _digest(recipe: Recipe) -> str:
    content = {name: value for name, value in asdict(recipe).items() if name not in _ORIGIN_FIELDS}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_DIGEST_LENGTH]
