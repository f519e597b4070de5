"""One self-contained HTML page: queries, and their hits as thumbnails."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from qwen3vl.cli.describe import where
from qwen3vl.inputs import shorten
from qwen3vl.media.preview import data_uri, preview, thumbnail
from qwen3vl.stores import Hit

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin-bottom: .25rem; } .note { opacity: .75; max-width: 50rem; }
section { border-top: 1px solid var(--line); padding: 1rem 0 1.5rem; }
.query { display: flex; gap: 1rem; align-items: center; margin-bottom: .9rem; }
.query img { max-height: 6rem; border-radius: 6px; border: 2px solid #4a7dff; }
.query q { font-size: 1.15rem; font-weight: 600; quotes: "“" "”"; } .query small { display: block; opacity: .7; }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .9rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; background: var(--soft); }
figure.wanted { border: 3px solid #2e9e4f; }
figure img { display: block; width: 100%; height: 9rem; object-fit: contain; background: #8882; }
figure blockquote { margin: 0; padding: .6rem .7rem; height: 7.8rem; overflow: hidden; font-size: .85rem; }
figcaption { padding: .45rem .7rem .6rem; font-size: .8rem; overflow-wrap: anywhere; }
figcaption b { font-variant-numeric: tabular-nums; } figcaption span { opacity: .75; }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """One query and its hits; `note` says more about it, `wanted` the id of the hit that is right, where known."""

    query: Mapping[str, Any]
    hits: Sequence[Hit]
    note: str = ""
    wanted: str | None = None


def write_page(path: Path, title: str, sections: Sequence[Section], note: str = "") -> None:
    """Writes the page; it refers to nothing outside itself."""
    body = "".join(_section(section) for section in sections)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f'<p class="note">{html.escape(note)}</p>{body}</html>\n'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _section(section: Section) -> str:
    parts = []
    if "image" in section.query:
        parts.append(_img(thumbnail(section.query["image"]), "the query's picture"))
    words = f"<q>{html.escape(section.query['text'])}</q>" if section.query.get("text") else ""
    parts.append(f"<div>{words}<small>{html.escape(section.note)}</small></div>")
    hits = "".join(
        _figure(number, hit, wanted=hit.id == section.wanted) for number, hit in enumerate(section.hits, start=1)
    )
    return (
        f'<section><div class="query">{"".join(parts)}</div>'
        f'<div class="hits">{hits or "<p>Nothing found.</p>"}</div></section>'
    )


def _figure(number: int, hit: Hit, *, wanted: bool) -> str:
    document = hit.document
    picture = preview(document)
    shown = (
        _img(picture, document.name)
        if picture is not None
        else f"<blockquote>{html.escape(shorten(document.text or 'no preview', 400))}</blockquote>"
    )
    scores = f"<b>{hit.score:.3f}</b>"
    if hit.rerank_score is not None:
        scores += f" · reranked <b>{hit.rerank_score:.3f}</b>"
    place = where(document) if document.kind != "text" else where(document).split(":")[0]
    told = " · ".join(html.escape(part) for part in (document.kind, place) if part)
    name = html.escape(Path(document.source).name or document.source)
    return (
        f"<figure{' class=wanted' if wanted else ''}>{shown}<figcaption>{number}. {scores}<br>"
        f'<span title="{html.escape(document.name)}">{name}</span><br><span>{told}</span></figcaption></figure>'
    )


def _img(picture: Image.Image | None, name: str) -> str:
    return "" if picture is None else f'<img src="{data_uri(picture)}" alt="{html.escape(name)}">'
