"""Every error of the package: one small tree, each naming the input, the reason and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Qwen3VLError(Exception):
    """The root of the tree."""


class ModelError(Qwen3VLError):
    """A checkpoint is missing, incomplete, or of another architecture."""


class RecipeError(Qwen3VLError):
    """A collection was written by another recipe than the one that opens it."""


class StoreError(Qwen3VLError):
    """A store cannot be opened, read or written.

    `passing` where it may be possible later; `refused` where it is what was sent that the store does not take.
    """

    def __init__(self, message: str, *, passing: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        self.refused = refused


class InputError(Qwen3VLError):
    """An input that cannot be used: empty, of a wrong type, or holding media that cannot be used.

    `source` names the picture or clip that is to blame, where one is.
    """

    source: str | None = None


class MediaError(InputError):
    """A picture or a clip that cannot be read: missing, broken, too large, or of a wrong shape."""


class PolicyError(MediaError):
    """A media reference that the `MediaPolicy` does not allow."""


class ItemError(Qwen3VLError):
    """One item's failure.

    `index` is its place in the caller's input, `source` says what it was (a path, a URL, "text", …),
    `reason` why it failed; the exception that caused it is `__cause__`.
    """

    def __init__(self, index: int, source: str, reason: str) -> None:
        super().__init__(f"item {index} ({source}): {reason}")
        self.index = index
        self.source = source
        self.reason = reason

    def at(self, index: int) -> ItemError:
        """The same failure under another index, for callers who passed on a part of what they were given."""
        moved = type(self)(index, self.source, self.reason)
        moved.__cause__ = self.__cause__
        return moved

    def __reduce__(self) -> tuple[type[ItemError], tuple[int, str, str]]:
        return type(self), (self.index, self.source, self.reason)


class BatchError(Qwen3VLError):
    """Some items of a call failed; the others are done and their results are here.

    `errors` are the failures by index; `results` is the array that the call would have returned, in
    the caller's order, with NaN rows where an item failed.
    """

    def __init__(self, errors: Sequence[ItemError], results: Any) -> None:
        shown = "; ".join(str(error) for error in errors[:5])
        more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
        super().__init__(
            f"{len(errors)} of {len(results)} items failed: {shown}{more}. The others are done: their results are in "
            "this exception's `results`, its `errors` tell of these."
        )
        self.errors = tuple(errors)
        self.results = results

    def __reduce__(self) -> tuple[type[BatchError], tuple[tuple[ItemError, ...], Any]]:
        return type(self), (self.errors, self.results)
