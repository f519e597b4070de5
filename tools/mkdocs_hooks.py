"""Adds pages to the documentation site that stand at the root of the repository.

README.md, CONTRIBUTING.md, CHANGELOG.md and SECURITY.md are read where a code host shows them, with links that work
there (`docs/inputs.md`). On the site they are pages beside the others, so their links are rewritten: a link to another
page of the site becomes relative to it, a link to any other file of the repository becomes plain code.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of `PAGES` to the site."""
    for source, target in PAGES.items():
        page = File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8"))
        page.edit_uri = None
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Rewrite links that are written relative to the repository."""
    here = page.file.src_uri
    written = {target: source for source, target in PAGES.items()}.get(here, f"docs/{here}")

    def rewrite(link: re.Match[str]) -> str:
        path, _, anchor = link["target"].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return link[0]
        in_repository = posixpath.normpath(posixpath.join(posixpath.dirname(written), path))
        on_site = PAGES.get(in_repository, in_repository.removeprefix("docs/"))
        if files.get_file_from_path(on_site) is not None and (in_repository in PAGES or in_repository != on_site):
            target = posixpath.relpath(on_site, posixpath.dirname(here) or ".")
            return f"{link['image']}[{link['text']}]({target}{'#' + anchor if anchor else ''})"
        if (ROOT / in_repository).exists():
            return f"{link['text']} (`{in_repository}`)"
        return link[0]  # a broken link: `mkdocs build --strict` reports it

    return LINK.sub(rewrite, markdown)
