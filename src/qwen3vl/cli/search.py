"""`qwen3vl search`: find what matches a text, an image, or both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3vl.cli.describe import describe_content
from qwen3vl.cli.models import ModelChoice, open_embedder, open_reranker
from qwen3vl.cli.output import EXIT_FAILED, EXIT_OK, one_line, print_json
from qwen3vl.cli.stores import open_existing
from qwen3vl.errors import InputError
from qwen3vl.retriever import Retriever
from qwen3vl.stores import Hit, Mode


def run_search(
    words: str,
    *,
    image: str | None,
    location: str,
    collection: str,
    choice: ModelChoice,
    rerank: bool,
    reranker: str | None,
    reranker_adapter: str | None,
    candidates: int,
    limit: int,
    kinds: Sequence[str],
    mode: Mode | None,
    instruction: str | None,
    html: str | None,
    console: Console,
    as_json: bool,
) -> int:
    """Search a store and print the hits.

    Args:
        words: The query's text; may be empty if there is an image.
        image: The query's image.
        location: The store, as `open_store` accepts it.
        collection: The collection in the store.
        choice: Model, device, dtype and media policy.
        rerank: Whether the reranker sorts the nearest hits.
        reranker: The reranker's name; None means the one that goes with the store's model.
        reranker_adapter: The reranker's LoRA adapter.
        candidates: How many hits the reranker scores.
        limit: How many hits are shown.
        kinds: Kinds of documents to search; empty for all.
        mode: Whether to search by vectors, by words or by both; None as `Search` says.
        instruction: The query's instruction, if it is not that of the documents.
        html: File to write a page with previews to.
        console: Where messages and the table go.
        as_json: Whether the hits are printed as JSON.

    Returns:
        The exit code: 1 if the page cannot be written.

    Raises:
        InputError: If there is nothing to search by, a number is below 1, or the page is a folder.
        StoreError: If there is no store or no collection.
    """
    query: dict[str, Any] = {}
    if words:
        query["text"] = words
    if image:
        query["image"] = image
    if not query:
        raise InputError("there is nothing to search by: give words, --image FILE, or both")
    if limit < 1 or candidates < 1:
        raise InputError("--limit and --candidates must be at least 1")
    if html:
        from qwen3vl.cli.page import check_page

        check_page(Path(html))
    store, stored = open_existing(location, collection)
    try:
        retriever = Retriever(
            open_embedder(choice, stored),
            store,
            open_reranker(reranker, choice, stored, adapter=reranker_adapter) if rerank else None,
            candidates=candidates,
            instruction=instruction,
        )
        hits = retriever.search(query, limit, where={"kind": list(kinds)} if kinds else None, mode=mode)
    finally:
        store.close()
    page_error = None
    if html:
        from qwen3vl.cli.page import QueryResult, write_or_explain, write_page

        page_error = write_or_explain(
            Path(html), lambda path: write_page(path, "Search", [QueryResult(query, hits)], policy=choice.policy)
        )
    if as_json:
        print_json([hit_as_dict(hit) for hit in hits])
    else:
        console.print(hit_table(hits) if hits else "nothing found")
    if html:
        console.print(page_error or f"page written: {html}", markup=False)
    return EXIT_FAILED if page_error else EXIT_OK


def hit_as_dict(hit: Hit) -> dict[str, object]:
    """Convert a hit to JSON values.

    Args:
        hit: A hit of a search.

    Returns:
        The hit's fields. `place` is the former name of `locator`.
    """
    document = hit.document
    fields: dict[str, object] = {
        "source": document.source,
        "locator": document.locator,
        "place": document.locator,
        "kind": document.kind,
        "score": round(hit.score, 6),
        "text": document.text,
        "image": document.image,
        "video": document.video,
        "metadata": dict(document.metadata),
        "id": hit.id,
    }
    if hit.rerank_score is not None:
        fields["rerank_score"] = round(hit.rerank_score, 6)
    if hit.rerank_error is not None:
        fields["rerank_error"] = hit.rerank_error
    return fields


def hit_table(hits: Sequence[Hit]) -> Table:
    """Build the table of hits that is shown in a terminal.

    Args:
        hits: The hits of a search, best first.

    Returns:
        One row a hit; the column of rerank scores only if the reranker read, or could not read, some.
    """
    reranked = any(hit.rerank_score is not None or hit.rerank_error is not None for hit in hits)
    table = Table()
    for name in ("", "score", *(("rerank",) if reranked else ()), "kind", "source", "where"):
        table.add_column(name, justify="right" if name in ("", "score", "rerank") else "left", overflow="fold")
    for rank, hit in enumerate(hits, start=1):
        cells = [str(rank), f"{hit.score:.3f}"]
        if reranked:
            cells.append("" if hit.rerank_score is None else f"{hit.rerank_score:.3f}")
        parts = [describe_content(hit.document), hit.rerank_error and f"not reranked: {hit.rerank_error}"]
        cells += [hit.document.kind, hit.document.source, "; ".join(filter(None, parts))]
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table
