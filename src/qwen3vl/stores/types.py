"""What goes into a vector store and what comes out: points, searches, filters and hits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, Literal, ParamSpec, TypedDict, get_args
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray

from qwen3vl._deprecation import deprecated_alias, renamed_arguments
from qwen3vl.documents import Document
from qwen3vl.recipe import Recipe

P = ParamSpec("P")
Vector = NDArray[np.float32]
"""One embedding, (dimensions,) float32."""
Scalar = str | int | float | bool
Mode = Literal["dense", "text", "hybrid"]
"""What a search compares: vectors, words, or both."""
Where = Mapping[str, Scalar | Sequence[Scalar] | Mapping[str, float]]
"""A filter by metadata keys (`source`, `kind`, `locator`, ...). All of its conditions must hold.

A scalar must be equal, a list must contain the value (an empty one matches nothing), and a mapping of gt, gte, lt and
lte is a range:
`{"kind": ["page", "picture"], "page": {"gte": 3}}`.
"""
RANGE_OPERATORS = frozenset({"gt", "gte", "lt", "lte"})
"""Keys of a range in a `Where`."""
POINT_REF_KEYS = ("source", "locator", "place")
"""Metadata keys that `PointRef.from_metadata` reads. Older collections have the locator under `place`."""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A document and its vector, as they are written to a store.

    Attributes:
        id: The UUID that `AsyncStore.point_id` returns for the document.
        vector: (dimensions,) float32.
        document: The document.
    """

    id: str
    vector: Vector
    document: Document


@dataclass(frozen=True, slots=True, eq=False)
class StoredPoint(Point):
    """A point as it was read from a store, to be copied into another one.

    Attributes:
        tenant: The point's tenant; None without tenants.
        database: Name of the database, as in `StoreCore.database`.
        payload: What the database has beside the vector, in its own form.
    """

    tenant: str | None
    database: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result.

    Attributes:
        id: The point's UUID.
        document: The document as it was stored.
        score: Cosine of the query's and the document's vectors; BM25 in mode `"text"`; in mode `"hybrid"` a number
            between 0 and 1 that depends on the ranks in both (1 for a document that is the first by both).
        rerank_score: The reranker's score between 0 and 1; None without a reranker, or if it failed on the document.
        rerank_error: Why the reranker failed on the document; None if it did not.
    """

    id: str
    document: Document
    score: float
    rerank_score: float | None = None
    rerank_error: str | None = None


@dataclass(frozen=True, slots=True)
class PointRef:
    """A stored point without its vector and content: enough to see whether its source still contains it.

    Attributes:
        id: The point's UUID.
        source: The document's source.
        locator: The document's locator.
    """

    id: str
    source: str
    locator: str

    @classmethod
    def from_metadata(cls, point_id: str, metadata: Mapping[str, Any]) -> PointRef:
        """Read source and locator from stored metadata, also from those of older collections.

        Args:
            point_id: The point's UUID.
            metadata: The point's metadata, or only those under `POINT_REF_KEYS`.

        Returns:
            The reference; missing fields are empty.
        """
        # A document of today always has a locator, which may be empty; `place` is the user's own key then.
        locator = metadata.get("locator")
        if locator is None:
            locator = metadata.get("place")
        return cls(point_id, str(metadata.get("source") or ""), str(locator or ""))

    place = deprecated_alias("PointRef", "place", "locator")


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """An existing collection.

    Attributes:
        metadata: The collection's metadata, where the recipe is stored.
        description: The client's own description of the collection, for `StoreCore.check_collection`.
    """

    metadata: Mapping[str, Any]
    description: Any


class SearchOptions(TypedDict, total=False):
    """The optional fields of `Search` as typed keyword arguments; see there."""

    where: Any
    offset: int
    threshold: float | None
    group_by: str | None
    exact: bool
    mode: Mode | None
    alpha: float


class StoreSearchOptions(SearchOptions, total=False):
    """Those of a search of a store, which does not know the query itself."""

    text: str


MAX_GROUP_CANDIDATES = 10_000
"""Number of points up to which a search with `group_by` is enlarged while it has found too few groups.

Without a bound, it would read the whole collection wherever there are fewer groups than hits are requested.
"""


@dataclass(frozen=True, eq=False)
class Search:
    """One query of a store.

    Attributes:
        vector: (dimensions,) float32; not used in mode `"text"`.
        limit: Maximum number of hits.
        where: A `Where`, or a filter of the database's own type.
        offset: Number of hits to skip, for paging.
        threshold: Minimum cosine of a hit.
        group_by: A metadata key, such as `"source"`: only the best hit of each value is returned. Hits without
            the key are left out. Where the database does not group, by words and in Chroma, groups are searched for
            among the best 10,000 points (`MAX_GROUP_CANDIDATES`), or among `limit` + `offset` if those are more.
        exact: Whether to compare all full vectors, instead of using an index, quantized and short vectors. Chroma
            always uses its index.
        mode: `"dense"` ranks by vectors, `"text"` by words (BM25), `"hybrid"` by both, fused by reciprocal ranks. None
            is `"hybrid"` if the collection can be searched by words, there is a text and no threshold, else `"dense"`.
        alpha: Share of the vectors in a hybrid search, from 0 to 1; the rest is that of the words.
        text: Words to search by.

    Raises:
        TypeError: There is no such option; the message names those that there are.
        ValueError: `limit` is less than 1, `offset` is negative, `alpha` is not between 0 and 1, there is no such mode,
            or it does not rank by cosine and there is a threshold.
    """

    vector: Vector
    limit: int = 10
    where: Any = None
    offset: int = 0
    threshold: float | None = None
    group_by: str | None = None
    exact: bool = False
    mode: Mode | None = None
    alpha: float = 0.5
    text: str = ""

    def __post_init__(self) -> None:
        if self.limit < 1 or self.offset < 0:
            raise ValueError(f"limit ({self.limit}) must be at least 1 and offset ({self.offset}) at least 0")
        if self.mode not in (None, *get_args(Mode)):
            raise ValueError(f"mode is {self.mode!r}; it may be {', '.join(get_args(Mode))} or None")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}; it is the share of the vectors, from 0 to 1")
        if self.threshold is not None and self.mode in ("text", "hybrid"):
            raise ValueError(
                f"a threshold is a minimum cosine, and mode={self.mode!r} does not rank by cosine: leave one out"
            )

    one_per = deprecated_alias("Search", "one_per", "group_by")


def _check_names(initialize: Callable[P, None]) -> Callable[P, None]:
    """Return a constructor of `Search` whose error for an unknown argument names the known ones."""
    names = [field.name for field in fields(Search)]

    @wraps(initialize)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if unknown := [name for name in kwargs if name not in names]:
            raise TypeError(f"unknown search option {unknown[0]!r}; the options are {', '.join(names[1:])}")
        initialize(*args, **kwargs)

    return call


Search.__init__ = renamed_arguments(one_per="group_by")(_check_names(Search.__init__))  # type: ignore[method-assign]


def is_value_list(value: Any) -> bool:
    """Return whether a value of a `Where` is a list of values, any one of which may match.

    Args:
        value: The value.

    Returns:
        True for lists, tuples and other sequences; False for text and bytes.
    """
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))


def matches_nothing(where: Any) -> bool:
    """Return whether no document can match a filter, because it has a condition with an empty list of values.

    Args:
        where: A `Where`, a filter of the database's own type, or None.

    Returns:
        True for a mapping such as `{"source": []}`; False for other mappings and types.
    """
    values = where.values() if isinstance(where, Mapping) else ()
    return any(is_value_list(value) and not value for value in values)


def tenant_point_id(document: Document, recipe: Recipe, tenant: str | None) -> str:
    """Return the UUID of a document's point. Different tenants have different points of the same document.

    Args:
        document: The document.
        recipe: The collection's recipe.
        tenant: The tenant's name; None without tenants.

    Returns:
        A UUID.
    """
    point_id = document.point_id(recipe)
    return point_id if tenant is None else str(uuid5(NAMESPACE_OID, f"{tenant}\0{point_id}"))
