"""URLs of files in object stores, which may have a query or a chain of file systems behind the file's name."""

from __future__ import annotations

import re

_TAIL = re.compile(r"\?[\w.-]+=|::")


def split_url(url: str) -> tuple[str, str]:
    """Divide a URL into what names a file or folder, and what says where that is.

    Args:
        url: A URL such as `s3://bucket/a.pdf?endpoint_override=minio:9000` or `zip://a.pdf::s3://bucket/all.zip`.

    Returns:
        Two strings whose sum is the URL: the second begins with the query or with `::`, and is empty if there is none.
    """
    tail = _TAIL.search(url)
    return (url[: tail.start()], url[tail.start() :]) if tail else (url, "")


def is_below(url: str, root: str) -> bool:
    """Return whether a URL is another one or that of a file below it, with the same query or chain.

    Args:
        url: The URL of a file.
        root: The URL of a file or folder.

    Returns:
        False if the root is a pattern.
    """
    (name, tail), (folder, of_root) = split_url(url), split_url(root)
    return tail == of_root and (name == folder or name.startswith(f"{folder.rstrip('/')}/"))
