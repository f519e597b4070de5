"""What decides a vector, in one small record that is stored with a collection and checked when it is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

from qwen3vl.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Recipe:
    """Vectors of equal recipes may be compared; of others, not.

    `weights` is the checkpoint's fingerprint; `revision` the hub's commit, where the model came from there.
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

    def __post_init__(self) -> None:
        # 1 and 1.0 are equal settings, and have to be equal in the digest.
        object.__setattr__(self, "fps", float(self.fps))
        object.__setattr__(self, "exif", bool(self.exif))
        for name in ("max_length", "min_pixels", "max_pixels", "total_pixels", "max_frames", "dimensions"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def digest(self) -> str:
        """32 hexadecimal digits over everything but where the weights were found."""
        return _digest(self)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments, beside the model, with which an `Embedder` has this recipe."""
        own = {"model", "weights", "prompt_version", "normalised"}
        return {name: value for name, value in asdict(self).items() if name not in own}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Recipe:
        """Reads what `to_dict` wrote; raises `RecipeError` where it is of another shape."""
        names = {field.name for field in fields(cls)}
        if set(stored) != names:
            odd = sorted(set(stored) ^ names)
            raise RecipeError(f"the stored recipe is of another version: it differs in {', '.join(odd)}")
        return cls(**stored)

    def check(self, stored: Recipe, place: str) -> None:
        """Raises `RecipeError` that names each field in which a collection's recipe differs."""
        if self.digest == stored.digest:
            return
        mine, theirs = self.to_dict(), stored.to_dict()
        differing = [name for name in mine if mine[name] != theirs[name] and name not in ("model", "revision")]
        told = "; ".join(f"{name} is {theirs[name]!r} there and {mine[name]!r} here" for name in differing)
        if "weights" in differing:
            told += f" (model {stored.model!r} there, {self.model!r} here)"
        raise RecipeError(
            f"{place} was written by another recipe: {told}. Open it with the same settings, or use another collection."
        )


@lru_cache(maxsize=64)
def _digest(recipe: Recipe) -> str:
    told = {name: value for name, value in asdict(recipe).items() if name not in ("model", "revision")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
