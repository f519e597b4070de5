"""`qwen3vl search`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3vl.cli import print_json
from qwen3vl.cli.describe import where
from qwen3vl.cli.models import open_embedder, open_reranker
from qwen3vl.cli.page import Section, write_page
from qwen3vl.errors import InputError, StoreError
from qwen3vl.inputs import shorten
from qwen3vl.retriever import Retriever
from qwen3vl.stores import Hit, open_store, parse_location


def run(options: argparse.Namespace, console: Console) -> int:
    query: dict[str, Any] = {}
    if options.query:
        query["text"] = options.query
    if options.image:
        query["image"] = options.image
    if not query:
        raise InputError("there is nothing to search by: give words, --image FILE, or both")
    if options.limit < 1 or options.candidates < 1:
        raise InputError("--limit and --candidates must be at least 1")
    _, folder = parse_location(options.store)
    if "://" not in folder and folder != ":memory:" and not Path(folder).is_dir():
        raise StoreError(
            f"there is no store at {options.store}: make one by `qwen3vl index PATH --store {options.store}`"
        )
    store = open_store(options.store, options.collection)
    try:
        stored = store.recipe()
        if stored is None:
            raise StoreError(f"the store {options.store} has no collection {options.collection!r} yet: index something")
        reranker = open_reranker(options, stored) if options.rerank or options.reranker else None
        retriever = Retriever(
            open_embedder(options, stored),
            store,
            reranker,
            candidates=options.candidates,
            instruction=options.instruction,
        )
        hits = retriever.search(query, options.limit, where={"kind": options.kind} if options.kind else None)
    finally:
        store.close()
    if options.json:
        print_json([hit_as_dict(hit) for hit in hits])
    else:
        console.print(hit_table(hits) if hits else "nothing found")
    if options.html:
        write_page(Path(options.html), "Search", [Section(query, hits)])
        console.print(f"page written: {options.html}", markup=False)
    return 0


def hit_as_dict(hit: Hit) -> dict[str, object]:
    """A hit for programs."""
    document = hit.document
    told: dict[str, object] = {
        "source": document.source,
        "locator": document.locator,
        "kind": document.kind,
        "score": round(hit.score, 6),
        "text": document.text,
        "image": document.image,
        "video": document.video,
        "metadata": dict(document.metadata),
        "id": hit.id,
    }
    if hit.rerank_score is not None:
        told["rerank_score"] = round(hit.rerank_score, 6)
    return told


def hit_table(hits: list[Hit]) -> Table:
    """Hits for people."""
    reranked = any(hit.rerank_score is not None for hit in hits)
    table = Table()
    for name in ("", "score", *(("rerank",) if reranked else ()), "kind", "source", "where"):
        table.add_column(name, justify="right" if name in ("", "score", "rerank") else "left", overflow="fold")
    for number, hit in enumerate(hits, start=1):
        cells = [str(number), f"{hit.score:.3f}"]
        if reranked:
            cells.append("" if hit.rerank_score is None else f"{hit.rerank_score:.3f}")
        cells += [hit.document.kind, hit.document.source, where(hit.document) or shorten(hit.document.text, 60)]
        table.add_row(*(Text(cell) for cell in cells))
    return table
