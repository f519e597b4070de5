"""Settings of a search that are compared, and grids of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from qwen3vl.stores import Mode


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to search.

    Attributes:
        store: Name of the store.
        mode: Whether to search by vectors, by words, or by both. In mode `"text"` a query without text finds nothing;
            in mode `"hybrid"` it is searched by its vector.
        dimensions: Compare only the first so many values of the full vectors, normalized again; all documents are
            compared, without an index. None searches the store as it is.
        exact: Whether the store compares all full vectors, instead of using its index, quantized and short vectors.
        instruction: Instruction of the queries for the embedder; None is that of the documents.
        candidates: Number of hits that the reranker scores; None for no reranker.
        rerank_instruction: What makes a document relevant; None is the reranker's instruction.

    Raises:
        ValueError: The values do not fit together.
    """

    store: str
    mode: Mode = "dense"
    dimensions: int | None = None
    exact: bool = False
    instruction: str | None = None
    candidates: int | None = None
    rerank_instruction: str | None = None

    def __post_init__(self) -> None:
        for name in ("dimensions", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.dimensions is not None and self.mode != "dense":
            raise ValueError(f"dimensions are compared in mode 'dense' only, and the mode is {self.mode!r}")

    @property
    def name(self) -> str:
        """The setting in words, such as `"library: dense, 64 values, reranked 20"`."""
        parts = [
            self.mode,
            "" if self.dimensions is None else f"{self.dimensions} values",
            "exact" if self.exact else "",
            "" if self.instruction is None else f"“{self.instruction}”",
            "" if self.candidates is None else f"reranked {self.candidates}",
            "" if self.rerank_instruction is None else f"“{self.rerank_instruction}”",
        ]
        return f"{self.store}: {', '.join(filter(None, parts))}"


def grid(
    stores: Sequence[str],
    modes: Sequence[Mode] = ("dense",),
    *,
    dimensions: Sequence[int] = (),
    exact: bool = False,
    instructions: Sequence[str | None] = (None,),
    candidates: Sequence[int | None] = (None,),
    rerank_instructions: Sequence[str | None] = (None,),
) -> list[Setting]:
    """Return all combinations of values, without those that are equal or make no difference.

    Args:
        stores: Names of stores.
        modes: As in `Setting`.
        dimensions: Numbers of values to compare besides the stores as they are, in mode `"dense"` whatever `modes`
            are. Vectors of the first store are used, since copies have equal ones.
        exact: Whether each search by vectors also runs exactly.
        instructions: As in `Setting`.
        candidates: As in `Setting`; None among them is the search without a reranker.
        rerank_instructions: As in `Setting`, for those with a reranker.

    Returns:
        The settings; the first of them is that of the first value of everything.

    Example:
        ```python
        settings = grid(["library"], ["dense", "hybrid"], dimensions=[512, 256], candidates=[None, 20])
        ```
    """
    searches = [
        Setting(store, mode, exact=is_exact)
        for store, mode, is_exact in product(stores, modes, (False, True) if exact else (False,))
        if not (is_exact and mode == "text")
    ]
    searches += [Setting(stores[0], dimensions=count) for count in dimensions]
    settings = [
        replace(
            search,
            instruction=None if search.mode == "text" else instruction,
            candidates=count,
            rerank_instruction=None if count is None else rerank_instruction,
        )
        for count, rerank_instruction, instruction, search in product(
            candidates, rerank_instructions, instructions, searches
        )
    ]
    return list(dict.fromkeys(settings))
