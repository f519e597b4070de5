"""All hostile files, by name."""

from __future__ import annotations

from tests.support.hostile import (
    containers,
    disguised,
    gif_webp,
    jpeg,
    mp4,
    other_images,
    pdf_structure,
    pdf_work,
    png,
    tiff,
)
from tests.support.hostile.file import HostileFile

MODULES = (png, jpeg, gif_webp, tiff, other_images, pdf_work, pdf_structure, mp4, containers, disguised)
CORPUS: dict[str, HostileFile] = {file.name: file for module in MODULES for file in module.FILES}
"""The files by name; a name tells the format and the attack."""
