"""One self-contained HTML page: queries, and their hits with previews."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from qwen3vl.cli.describe import describe_part
from qwen3vl.cli.output import printable
from qwen3vl.documents import Document
from qwen3vl.errors import InputError, Qwen3VLError
from qwen3vl.inputs import shorten
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.media.preview import data_uri, preview, thumbnail
from qwen3vl.stores import Hit

MAX_TEXT = 400
"""How many characters of a passage are shown."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A query and its hits.

    Attributes:
        query: The query, with `text`, `image` or both.
        hits: The hits in the order in which they are shown.
        note: A line about the query.
        match_id: The id of the hit that is right, where that is known.
    """

    query: Mapping[str, Any]
    hits: Sequence[Hit]
    note: str = ""
    match_id: str | None = None


def check_page(path: Path) -> None:
    """Check that a page can be written, as far as that can be told, before there is anything to show on it.

    Args:
        path: The file to write. Nothing is created.

    Raises:
        InputError: It is a folder, or there is no folder for it that may be written to.
    """
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if path.is_dir():
        reason = "it is a folder"
    elif existing != path and not existing.is_dir():
        reason = f"{existing} is a file, and no folder"
    elif not os.access(existing, os.W_OK):
        reason = f"{existing} may not be written to"
    else:
        return
    raise InputError(f"the page {path} cannot be written: {reason}. Give --html another file")


def write_or_explain(path: Path, write: Callable[[Path], None]) -> str | None:
    """Write a page, and return the reason if that fails, so that what is printed is not lost.

    Args:
        path: The file to write.
        write: Writes it.

    Returns:
        A line for the user; None if the page was written.
    """
    try:
        write(path)
    except (Qwen3VLError, OSError) as error:
        return f"the page {path} cannot be written: {error}"
    return None


def write_page(
    path: Path,
    title: str,
    results: Sequence[QueryResult],
    note: str = "",
    policy: MediaPolicy = DEFAULT_POLICY,
) -> None:
    """Write a page that refers to nothing outside itself; names and texts are escaped, their control characters too.

    Args:
        path: The file to write; missing folders are created.
        title: The page's title.
        results: The queries with their hits, one section each.
        note: A paragraph below the title.
        policy: Limits on the media that are shown.
    """
    render_page(path, "results.html", title=title, note=note, sections=[_section(result, policy) for result in results])


def render_page(path: Path, template: str, **values: object) -> None:
    """Write a page from a template; texts are escaped, their control characters too.

    Args:
        path: The file to write; missing folders are created.
        template: Name of the template.
        **values: What the template shows.
    """
    environment = Environment(
        loader=PackageLoader("qwen3vl.cli"),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(**values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html + "\n", encoding="utf-8")


def _printable(value: object) -> object:
    # The output of a macro is markup, whose texts were escaped inside the macro.
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _section(result: QueryResult, policy: MediaPolicy) -> dict[str, object]:
    """Return what the template shows of a query."""
    image = result.query.get("image")
    return {
        "image": None if image is None else data_uri(thumbnail(image, policy)),
        "text": result.query.get("text"),
        "note": result.note,
        "hits": [hit_figure(hit, policy, is_match=hit.id == result.match_id) for hit in result.hits],
    }


def hit_figure(hit: Hit, policy: MediaPolicy, *, is_match: bool) -> dict[str, object]:
    """Return what a template shows of a hit.

    Args:
        hit: A hit of a search.
        policy: Limits on the media that are shown.
        is_match: Whether it is known to be right.

    Returns:
        The variables of `figure.html`.
    """
    return {
        **document_figure(hit.document, policy),
        "score": hit.score,
        "rerank_score": hit.rerank_score,
        "rerank_error": hit.rerank_error,
        "is_match": is_match,
    }


def document_figure(document: Document, policy: MediaPolicy) -> dict[str, object]:
    """Return what a template shows of a document that is no hit.

    Args:
        document: A document.
        policy: Limits on the media that are shown.

    Returns:
        The variables of `figure.html`; there is no score.
    """
    image = preview(document, policy)
    return {
        "image": None if image is None else data_uri(image),
        "text": shorten(document.text or "no preview", MAX_TEXT),
        "name": document.name,
        "file_name": Path(document.source).name or document.source,
        "kind": document.kind,
        "part": describe_part(document),
        "score": None,
        "rerank_score": None,
        "rerank_error": None,
        "is_match": True,
    }
