"""Writes files as the data sets of MMEB-v2 are published: hub repositories of parquet files, pictures and frames.

The official scripts read them through `datasets`, so that they are described in a README as on the hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from qwen3vl.evaluation.mmeb_v2.annotation_files import annotation_folder
from qwen3vl.evaluation.mmeb_v2.specs import Source
from tests.golden.inputs import scene


def write_split(
    data: Path, source: Source, rows: Sequence[Mapping[str, Any]], *, images: Sequence[str] = (), files: int = 1
) -> None:
    """Write the rows of a split into a copy of a hub repository, beside its other configurations and splits.

    Args:
        data: The folder of all data.
        source: Repository, configuration and split.
        rows: The rows.
        images: Columns with encoded images.
        files: Number of parquet files.
    """
    repo = annotation_folder(data, source)
    folder = repo / (source.config or "data")
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    if images:
        types = {name: {"_type": "Image"} if name in images else _feature(table.schema.field(name)) for name in rows[0]}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": types}})})
    size = -(-len(rows) // files)
    for number in range(files):
        name = f"{source.split}-{number:05d}-of-{files:05d}.parquet"
        pq.write_table(table.slice(number * size, size), folder / name)
    _describe(repo)


def encoded_image(picture: Image.Image) -> dict[str, Any]:
    """Return a picture as a column of images has it."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "page.png"}


def draw(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """Draw a picture, the same on every machine."""
    return Image.fromarray(scene(width, height, seed))


def save_picture(path: Path, seed: int, width: int = 96, height: int = 64) -> None:
    """Draw a picture into a file, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(seed, width, height).save(path)


def _feature(field: pa.Field) -> dict[str, Any]:
    if pa.types.is_list(field.type):
        return {"_type": "List", "feature": _feature(field.type.field(0))}
    return {"_type": "Value", "dtype": str(field.type)}


def _describe(repo: Path) -> None:
    """Write the README that names the files of all configurations and splits."""
    lines = ["---", "configs:"]
    for folder in sorted(path for path in repo.iterdir() if path.is_dir()):
        lines.append(f"- config_name: {'default' if folder.name == 'data' else folder.name}")
        lines.append("  data_files:")
        for split in sorted({file.name.split("-")[0] for file in folder.glob("*.parquet")}):
            lines += [f"  - split: {split}", f"    path: {folder.name}/{split}-*"]
    (repo / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
